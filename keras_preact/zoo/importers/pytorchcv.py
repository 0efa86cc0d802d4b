"""pytorchcv's and tf2cv's `preresnet*` and `resnet*`, for ImageNet and CIFAR: the same names, in files of two kinds."""
import dataclasses
import re
from collections.abc import Mapping
from itertools import chain

from keras_preact.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from keras_preact.networks.architectures import CONFIGS
from keras_preact.networks.config import plan
from keras_preact.zoo.importers import files, matching
from keras_preact.zoo.importers.engine import KERAS, TORCH, Upstream, names_of

OBJECTS = (Mapping,)  # what `convert` takes besides files
UNITS = {
    "stage{s}_unit{u}_bn{i}": "features.stage{s}.unit{u}.body.conv{i}.bn",
    "stage{s}_unit{u}_conv{i}": "features.stage{s}.unit{u}.body.conv{i}.conv",
    "predictions": "output",
}
PREACTIVATION = UNITS | {
    "stage{s}_unit{u}_shortcut_conv": "features.stage{s}.unit{u}.identity_conv",
    "closing_bn": "features.post_activ.bn",
}
ORIGINAL = UNITS | {
    "stage{s}_unit{u}_shortcut_conv": "features.stage{s}.unit{u}.identity_conv.conv",
    "stage{s}_unit{u}_shortcut_bn": "features.stage{s}.unit{u}.identity_conv.bn",
}
LAYERS = {  # by whether the network is for ImageNet, and of original units
    (True, False): {"stem_conv": "features.init_block.conv", "stem_bn": "features.init_block.bn"} | PREACTIVATION,
    (True, True): {"stem_conv": "features.init_block.conv.conv", "stem_bn": "features.init_block.conv.bn"} | ORIGINAL,
    (False, False): {"stem_conv": "features.init_block"} | PREACTIVATION,
    (False, True): {"stem_conv": "features.init_block.conv", "stem_bn": "features.init_block.bn"} | ORIGINAL,
}
IMAGENET_LAYOUT = {"stem": "conv7x7_pool", "first_activation": "both", "shortcut": "project_on_change"}
CIFAR_LAYOUT = {
    "stem": "conv3x3", "first_activation": "unit", "shortcut": "project_on_change", "stride_on": "conv3x3",
}
IMAGENET_PREPROCESSING = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, (224, 224), 0.875)
CIFAR_PREPROCESSING = Preprocessing((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), (32, 32))  # of SVHN, too
_NAME = re.compile(r"(?P<pre>pre)?resnet(?P<depth>\d+)(?P<variant>bn|b)?(_(?P<data>cifar100?|svhn))?")


def load(weights, name):
    """Returns the `Upstream` of a .pth file or a state dict of pytorchcv, or of a .h5 file of tf2cv."""
    named, variables = _NAME.match(name), TORCH
    if isinstance(weights, Mapping):
        tensors = files.state_dict(weights)
    elif weights.suffix == ".h5":
        variables = KERAS
        tensors = _tf2cv(weights, named)
    else:
        tensors = files.torch(weights)
    if not any(tensor.startswith("features.") for tensor in tensors):
        raise ValueError(
            f"{name or 'The dict'} has no tensor named as pytorchcv and tf2cv name theirs; nothing was loaded. Those "
            "of pre-activation networks, preresnet*, are features.init_block..., features.stage1.unit1.body.conv1... "
            "and features.post_activ.bn...; those of original ones, resnet*, are the same without features.post_activ. "
            f"Received: {', '.join(list(tensors)[:5])}. Give the `source` it is from; of a file of tf2cv whose tensors "
            "have other names give the `name`, such as 'preresnet20_cifar10'."
        )
    original = not any(tensor.startswith("features.post_activ.") for tensor in tensors)
    stem = "features.init_block.conv.bn." if original else "features.init_block.bn."
    large = any(tensor.startswith(stem) for tensor in tensors)
    bottleneck = any(".body.conv3." in tensor for tensor in tensors)
    if large and bottleneck and not named:
        raise ValueError(
            "preresnet50 and preresnet50b, and resnet50 and resnet50b, have the same tensors and differ in which conv "
            f"has the stride: give the `name` of the network, such as 'preresnet50b'. Received: {name!r}"
        )
    return Upstream(
        tensors, LAYERS[large, original], _layout(large, original, bottleneck, named), variables,
        depth=named and int(named["depth"]),
        preprocessing=IMAGENET_PREPROCESSING if large else CIFAR_PREPROCESSING,
        labels="imagenet" if large else named and named["data"],
    )


def _layout(large, original, bottleneck, named):
    layout = CIFAR_LAYOUT
    if large:
        first = bottleneck and named["variant"] != "b"
        layout = IMAGENET_LAYOUT | {"stride_on": "first_conv" if first else "conv3x3"}
    return layout | ({"order": "original"} if original else {})


def _tf2cv(path, named):
    """Returns {pytorchcv's name: array} of a .h5 file; tensors that are named otherwise than today are matched."""
    tensors = files.h5(path)
    found = {_torch_name(variable): array for (_, variable), array in tensors.items()}
    architecture = named and f"{'PreAct' if named['pre'] else ''}ResNet{named['depth']}"
    if architecture not in CONFIGS:
        return found
    wanted = _expected(CONFIGS[architecture], bool(named["pre"]))
    if found.keys() in (wanted.keys(), _expected(CONFIGS[architecture], not named["pre"]).keys()):
        return found
    short = {_without_conv(name): name for name in wanted}  # each conv is wrapped in a layer there
    try:
        matched = matching.match(
            {_without_conv(f"{layer}/{variable}").replace("output1/", "output/"): array
             for (layer, variable), array in tensors.items()},
            {_without_conv(name): shape for name, shape in wanted.items()}, path,
        )
    except ValueError as error:
        raise ValueError(
            f"{error} By its name it is {architecture}; of another network give the `name`, 'preresnet...' of a "
            "pre-activation one and 'resnet...' of an original one."
        ) from error
    return {short[name]: array for name, array in matched.items()}


def _torch_name(name):
    """The name in tf2cv of a variable in pytorchcv's words.

    tf2cv's begin with the model's, a sequence of layers repeats its own, and each conv is wrapped in a layer.
    """
    name = re.sub(r"^.*?(?=features/|output1/)", "", name)
    name = re.sub(r"\b(features|stage\d+)/\1/", r"\1/", name)
    return name.replace("/conv/kernel", "/kernel").replace("output1/", "output/").replace("/", ".")


def _without_conv(name):
    return re.sub(r"([./])(conv\1)+kernel$", r"\1kernel", name)


def _expected(config, preactivation):
    """Returns {tensor: shape} of a network, in pytorchcv's words and in the order in which it defines them."""
    large, original = config.stem == "conv7x7_pool", not preactivation
    layers, width = LAYERS[large, original], config.widths[0]
    config = dataclasses.replace(config, shortcut="project_on_change")
    shapes = {"stem_conv": (7, 7, None, width) if large else (3, 3, None, width), "stem_bn": (width,)}
    for unit in chain(*plan(config)):
        channels = unit.channels
        for i, c in enumerate(unit.convs, start=1):
            bn, conv = f"{unit.name}_bn{i}", f"{unit.name}_conv{i}"
            if preactivation:
                shapes[bn] = (channels,)
            shapes[conv] = (c.kernel, c.kernel, channels, c.filters)
            shapes.setdefault(bn, (c.filters,))
            channels = c.filters
        if unit.shortcut == "project":
            shapes[f"{unit.name}_shortcut_conv"] = (1, 1, unit.channels, channels)
            shapes[f"{unit.name}_shortcut_bn"] = (channels,)
    shapes |= {"closing_bn": (channels,), "predictions": (channels, None)}
    theirs = {ours: name for name, ours in names_of(layers).items()}
    wanted = {}
    for ours, shape in shapes.items():
        if ours in theirs:
            words = KERAS["bn"] if len(shape) == 1 else ("kernel", "bias") if len(shape) == 2 else ("kernel",)
            wanted |= {f"{theirs[ours]}.{word}": shape[-1:] if word == "bias" else shape for word in words}
    return wanted
