"""torchvision's `resnet18` to `resnet152`, and the networks for CIFAR that others made of its code.

Those are `cifar10_resnet20` and so on of chenyaofo/pytorch-cifar-models, with option B, and `resnet20` and so on of
akamaster/pytorch_resnet_cifar10, with option A: half of its zeros stand before the channels and half behind them. Ours
all stand behind, which is the same function once the channels are in another order.
"""
import re
from collections.abc import Mapping

import numpy as np

from keras_preact.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from keras_preact.zoo.importers import files
from keras_preact.zoo.importers.engine import TORCH, Upstream

OBJECTS = (Mapping,)  # what `convert` takes besides files
UNITS = {
    "stem_conv": "conv1",
    "stem_bn": "bn1",
    "stage{s}_unit{u}_conv{i}": "layer{s}.{u}.conv{i}",
    "stage{s}_unit{u}_bn{i}": "layer{s}.{u}.bn{i}",
}
LAYERS = UNITS | {
    "stage{s}_unit{u}_shortcut_conv": "layer{s}.{u}.downsample.0",
    "stage{s}_unit{u}_shortcut_bn": "layer{s}.{u}.downsample.1",
    "predictions": "fc",
}
AKAMASTER_LAYERS = UNITS | {"predictions": "linear"}
LAYOUT = {"order": "original", "stride_on": "conv3x3"}
IMAGENET_LAYOUT = LAYOUT | {"stem": "conv7x7_pool", "shortcut": "project_on_change"}
CIFAR_LAYOUT = LAYOUT | {"shortcut": "project_on_change"}
AKAMASTER_LAYOUT = LAYOUT | {"shortcut": "zero_pad"}
IMAGENET = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, (224, 224), 0.875)  # of the first version of their weights
CIFAR = {
    "cifar10": Preprocessing((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), (32, 32)),
    "cifar100": Preprocessing((0.5070, 0.4865, 0.4409), (0.2673, 0.2564, 0.2761), (32, 32)),
}
AKAMASTER = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, (32, 32))  # means of ImageNet for CIFAR-10, indeed


def load(weights, name):
    """Returns the `Upstream` of a .pth, .pt or .th file, or of a state dict."""
    tensors = files.state_dict(weights) if isinstance(weights, Mapping) else files.torch(weights)
    named = re.search(r"resnet(\d+)", name)
    depth = named and int(named[1])
    if "linear.weight" in tensors:
        return Upstream(
            _zeros_behind(tensors), AKAMASTER_LAYERS, AKAMASTER_LAYOUT, TORCH, first=(1, 0), depth=depth,
            preprocessing=AKAMASTER, labels="cifar10",
        )
    if "conv1.weight" in tensors and tensors["conv1.weight"].shape[-1] == 7:
        return Upstream(
            tensors, LAYERS, IMAGENET_LAYOUT, TORCH, first=(1, 0), depth=depth, preprocessing=IMAGENET
        )
    data = re.search(r"cifar100?", name)
    return Upstream(
        tensors, LAYERS, CIFAR_LAYOUT, TORCH, first=(1, 0), depth=depth, preprocessing=data and CIFAR[data[0]],
        labels=data and data[0],
    )


def _zeros_behind(tensors):
    """Returns the tensors with the channels of each stage in an order in which the zeros of option A come last."""
    orders = [np.arange(len(tensors.get("bn1.weight", ())))]  # of the stem's channels, and of each stage's
    while (first := f"layer{len(orders)}.0.conv1.weight") in tensors:
        orders.append(_wider(orders[-1], len(tensors[first])))
    ordered = {}
    for name, tensor in tensors.items():
        place = re.match(r"layer(\d+)\.(\d+)\.(conv1|conv2|bn2)\.", name)
        stage = int(place[1]) if place else len(orders) - 1
        axis = 1 if name == "linear.weight" or place and place[3] == "conv1" else 0
        if name == "linear.weight" or place:
            order = orders[stage - 1 if place and place.group(2, 3) == ("0", "conv1") else stage]
            fits = tensor.ndim > axis and tensor.shape[axis] == len(order)  # or `convert` tells that it does not
            tensor = tensor.take(order, axis) if fits else tensor
        ordered[name] = tensor
    return ordered


def _wider(order, channels):
    """Returns the order of the next stage: the channels of `order`, which stand between new ones, and then those."""
    kept = order + (channels - len(order)) // 2
    return np.concatenate([kept, np.setdiff1d(np.arange(channels), kept)])
