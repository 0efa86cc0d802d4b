"""pytorchcv's and tf2cv's `preresnet*`, for ImageNet and CIFAR, which share their names and differ in their files."""
import re
from collections.abc import Mapping

from keras_preact.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from keras_preact.zoo.importers import files
from keras_preact.zoo.importers.engine import KERAS, TORCH, Upstream

OBJECTS = (Mapping,)  # what `convert` takes besides files
UNITS = {
    "stage{s}_unit{u}_bn{i}": "features.stage{s}.unit{u}.body.conv{i}.bn",
    "stage{s}_unit{u}_conv{i}": "features.stage{s}.unit{u}.body.conv{i}.conv",
    "stage{s}_unit{u}_shortcut_conv": "features.stage{s}.unit{u}.identity_conv",
    "closing_bn": "features.post_activ.bn",
    "predictions": "output",
}
IMAGENET = {"stem_conv": "features.init_block.conv", "stem_bn": "features.init_block.bn", **UNITS}
CIFAR = {"stem_conv": "features.init_block", **UNITS}
IMAGENET_LAYOUT = {"stem": "conv7x7_pool", "first_activation": "both", "shortcut": "project_on_change"}
CIFAR_LAYOUT = {
    "stem": "conv3x3", "first_activation": "unit", "shortcut": "project_on_change", "stride_on": "conv3x3",
}
IMAGENET_PREPROCESSING = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, (224, 224), 0.875)
CIFAR_PREPROCESSING = Preprocessing((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), (32, 32))


def load(weights, name):
    """Returns the `Upstream` of a .pth file or a state dict of pytorchcv, or of a .h5 file of tf2cv."""
    variables = TORCH
    if isinstance(weights, Mapping):
        tensors = files.state_dict(weights)
    elif weights.suffix == ".h5":
        variables = KERAS
        tensors = {_torch_name(variable): array for (_, variable), array in files.h5(weights).items()}
    else:
        tensors = files.torch(weights)
    named = re.match(r"preresnet(\d+)(b?)", name)
    depth = named and int(named[1])
    if not any(tensor.startswith("features.init_block.bn.") for tensor in tensors):
        data = re.search(r"cifar100?", name)
        return Upstream(
            tensors, CIFAR, CIFAR_LAYOUT, variables, depth=depth, preprocessing=CIFAR_PREPROCESSING,
            labels=data and data[0],
        )
    bottleneck = any(".body.conv3." in tensor for tensor in tensors)
    if bottleneck and not named:
        raise ValueError(
            "preresnet50 and preresnet50b have the same tensors and differ in which conv has the stride: give the "
            f"`name` of the network, such as 'preresnet50b'. Received: {name!r}"
        )
    layout = IMAGENET_LAYOUT | {"stride_on": "first_conv" if bottleneck and not named[2] else "conv3x3"}
    return Upstream(tensors, IMAGENET, layout, variables, depth=depth, preprocessing=IMAGENET_PREPROCESSING)


def _torch_name(name):
    """The name in tf2cv of a variable in pytorchcv's words.

    tf2cv's begin with the model's, a sequence of layers repeats its own, and each conv is wrapped in a layer.
    """
    name = re.sub(r"^.*?(?=features/|output1/)", "", name)
    name = re.sub(r"\b(features|stage\d+)/\1/", r"\1/", name)
    return name.replace("/conv/kernel", "/kernel").replace("output1/", "output/").replace("/", ".")
