"""From tensors as another zoo names them to a network of ours: rename, read the layout off them, check, assign."""
import dataclasses
import re
from itertools import product

from keras_preact import models, pretrained
from keras_preact.networks import NetworkConfig, ResNet
from keras_preact.preprocessing import Preprocessing
from keras_preact.units import channel_axis

# What the variables of a layer are called, theirs to ours, by the kind of layer.
KERAS = {kind: dict(zip(names, names)) for kind, names in {
    "bn": ("gamma", "beta", "moving_mean", "moving_variance"), "conv": ("kernel", "bias"),
}.items()}
TORCH = {
    "bn": dict(zip(("weight", "bias", "running_mean", "running_var"), KERAS["bn"])),
    "conv": dict(zip(("weight", "bias"), KERAS["conv"])),
}
IGNORED = ("num_batches_tracked",)  # counted by Torch in training, of no effect on the outputs

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Upstream:
    """A network as another zoo saves it.

    Args:
        tensors: {"layer.variable": array}, as the file has them.
        layers: our name of each layer to theirs, where "{s}", "{u}" and "{i}" stand for the numbers of stage, unit and
            layer.
        layout: the fields of `NetworkConfig` that all networks of that zoo share; the others are read off the tensors.
        variables: `KERAS` or `TORCH`, whose arrays have other axes, too.
        first: their numbers of the first stage and the first unit.
        depth: layers that the network's name promises; None if it does not.
        preprocessing: a `Preprocessing`; None if unknown.
        labels: the name of a label set or a name for each class; default by the number of classes.
    """

    tensors: dict
    layers: dict
    layout: dict
    variables: dict
    first: tuple = (1, 1)
    depth: int | None = None
    preprocessing: Preprocessing | None = None
    labels: str | tuple | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What `convert` did.

    Args:
        source: the zoo.
        architecture: name of the builder for a network of this depth.
        config: the `NetworkConfig` that was built, in the layout of that zoo.
        classes: outputs.
        tensors, parameters: how many tensors were used, each exactly once, and how many numbers are in them.
        ignored: the tensors without effect on the outputs, which were left out.
        preprocessing: a `Preprocessing`; None if the source does not tell.
        labels: the name of a label set, or a name for each class; None if the source does not tell.
    """

    source: str
    architecture: str
    config: NetworkConfig
    classes: int
    tensors: int
    parameters: int
    ignored: tuple
    preprocessing: Preprocessing | None
    labels: str | tuple | None

    def __str__(self):
        canonical = models.CONFIGS[self.architecture]
        layout = [
            f"{field.name}={getattr(self.config, field.name)!r}" for field in dataclasses.fields(self.config)
            if getattr(self.config, field.name) != getattr(canonical, field.name)
        ]
        return (
            f"{self.architecture} from {self.source}: {self.parameters:,} parameters in {self.tensors} tensors, each "
            f"used once; {len(self.ignored)} ignored; {self.classes} classes\n"
            f"layout: {', '.join(layout) or 'as ours'}\n"
            f"preprocessing: {self.preprocessing or 'unknown'}"
        )


def convert(upstream, source, where, **network):
    """Returns (our network with the tensors of `upstream`, a `Report`)."""
    names = _names(upstream)
    found, ignored, problems = _rename(upstream, names)
    theirs = {ours: name for name, ours in names.items()}

    def tensor(layer, variable):
        words = {ours: word for word, ours in upstream.variables[_kind(layer)].items()}
        return f"{theirs.get(layer, layer)}.{words[variable]}"

    problems += [
        f"{tensor(layer, variable)}: missing" for layer, variable in (
            ("stem_conv", "kernel"), ("stage1_unit1_conv1", "kernel"), (pretrained.HEAD, "kernel"),
        ) if (layer, variable) not in found
    ]
    _refuse(problems, source, where)
    config = _config(found, upstream.layout, lambda problem: _refuse([problem], source, where))
    architecture = models.architecture(config)
    depth = sum(config.units) * (3 if config.unit == "bottleneck" else 2) + 2
    if architecture is None or upstream.depth not in (None, depth):
        expected = f"{upstream.depth} layers are expected" if upstream.depth else "the zoo has no such network"
        problems.append(
            f"stages of {config.units} {config.unit} units of {config.widths} filters, which makes {depth} layers: "
            f"{expected}; the file may be incomplete"
        )
        _refuse(problems, source, where)

    channels, classes = found["stem_conv", "kernel"].shape[2], found[pretrained.HEAD, "kernel"].shape[-1]
    shape = (channels, None, None) if channel_axis() == 1 else (None, None, channels)
    model = ResNet(config, **{"input_shape": shape, "classes": classes, "name": architecture.lower()} | network)
    wanted = {
        (layer.name, variable.name): tuple(variable.shape) for layer in model.layers for variable in layer.weights
    }
    problems += [f"{tensor(*key)}: missing" for key in wanted if key not in found]
    problems += [f"{tensor(*key)}: the network has no place for it" for key in found if key not in wanted]
    problems += [
        f"{tensor(*key)}: expected {_by(wanted[key])} in Keras's order, found {_by(found[key].shape)}"
        for key in wanted.keys() & found.keys() if wanted[key] != found[key].shape
    ]
    _refuse(problems, source, where)
    pretrained.assign(
        model, {layer.name: [found[layer.name, variable.name] for variable in layer.weights]
                for layer in model.layers if layer.weights}, where,
    )
    return model, Report(
        source, architecture, config, classes, len(found), sum(array.size for array in found.values()), ignored,
        upstream.preprocessing, upstream.labels or _labels(config, classes),
    )


def _names(upstream):
    """Returns {their layer: ours}, for every unit that a network of the zoo may have."""
    most = max(max(config.units) for config in models.CONFIGS.values())
    stage, unit = upstream.first
    return {
        theirs.format(s=stage + s, u=unit + u, i=i): ours.format(s=1 + s, u=1 + u, i=i)
        for ours, theirs in upstream.layers.items()
        for s, u, i in (product(range(4), range(most), (1, 2, 3)) if "{" in theirs else [(0, 0, 1)])
    }


def _rename(upstream, names):
    """Returns {(our layer, variable): array in Keras's order}, the names that are ignored, and what is wrong."""
    found, ignored, problems = {}, [], []
    for name, array in upstream.tensors.items():
        theirs, _, word = name.rpartition(".")
        layer = names.get(theirs)
        if word in IGNORED and layer is not None:
            ignored.append(name)
            continue
        variable = layer and upstream.variables[_kind(layer)].get(word)
        if not variable:
            problems.append(f"{name}: not a tensor of these networks")
        elif (layer, variable) in found:
            problems.append(f"{name}: a second tensor for the {variable} of {layer}")
        else:
            found[layer, variable] = _in_keras_order(array, layer) if upstream.variables is TORCH else array
    return found, tuple(ignored), problems


def _kind(layer):
    return "bn" if layer.rsplit("_", 1)[-1].startswith("bn") else "conv"


def _in_keras_order(array, layer):
    """From Torch's (out, in, height, width) and (out, in); the head may be a 1x1 conv there."""
    if layer == pretrained.HEAD and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    return array.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim))


def _config(found, layout, refuse):
    """Returns the `NetworkConfig` of that layout, with the depth and the widths that the tensors tell."""
    layers = {layer for layer, _ in found}
    stages = {}
    for layer in layers:
        if match := re.match(r"stage(\d+)_unit(\d+)_", layer):
            stages.setdefault(int(match[1]), set()).add(int(match[2]))
    for stage in range(1, max(stages) + 1):
        for unit in range(1, max(stages.get(stage, {1})) + 1):
            if (f"stage{stage}_unit{unit}_conv1", "kernel") not in found:
                refuse(f"unit {unit} of stage {stage} is incomplete or missing, and others follow it")

    def filters(layer):
        return found[layer, "kernel"].shape[-1]

    return NetworkConfig(
        units=[max(stages[stage]) for stage in sorted(stages)],
        widths=[found[f"stage{stage}_unit1_conv1", "kernel"].shape[-1] for stage in sorted(stages)],
        unit="bottleneck" if "stage1_unit1_conv3" in layers else "basic",
        **layout,
    )


def _labels(config, classes):
    return {("conv7x7_pool", 1000): "imagenet", ("conv3x3", 10): "cifar10", ("conv3x3", 100): "cifar100"}.get(
        (config.stem, classes)
    )


def _refuse(problems, source, where):
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise ValueError(
            f"{where} does not hold the weights of a network that {source} publishes and this zoo has; nothing was "
            "loaded.\n  " + "\n  ".join(sorted(problems)[:10]) + more
        )


def _by(shape):
    return "x".join(map(str, shape))
