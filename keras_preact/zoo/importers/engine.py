"""From tensors as another zoo names them to a network of ours: rename, read the layout off them, check, assign."""
import dataclasses
import re
from itertools import chain, product

from keras_preact.data.preprocessing import LABELS, Preprocessing, image_shape
from keras_preact.networks import files
from keras_preact.networks.architectures import CONFIGS, builder_name
from keras_preact.networks.building import ResNet
from keras_preact.networks.config import UNITS, NetworkConfig
from keras_preact.zoo.metadata import Metadata

# What the variables of a layer are called, theirs to ours, by the kind of layer.
KERAS = {kind: dict(zip(names, names)) for kind, names in {
    "bn": ("gamma", "beta", "moving_mean", "moving_variance"), "conv": ("kernel", "bias"),
}.items()}
TORCH = {
    "bn": dict(zip(("weight", "bias", "running_mean", "running_var"), KERAS["bn"])),
    "conv": dict(zip(("weight", "bias"), KERAS["conv"])),
}
IGNORED = ("num_batches_tracked",)  # counted by Torch in training, of no effect on the outputs


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
        labels: the name of a label set or a name for each class; not of this network if it has other classes.
    """

    tensors: dict
    layers: dict
    layout: dict
    variables: dict
    first: tuple = (1, 1)
    depth: int | None = None
    preprocessing: Preprocessing | None = None
    labels: str | tuple | None = "imagenet"


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

    def metadata(self, measured, file, licence):
        """Returns the `Metadata` with which the network is published.

        Args:
            measured: what `evaluate` reported of it.
            file: what was converted.
            licence: SPDX name.

        Raises:
            ValueError: the source tells no preprocessing or no labels.
        """
        if self.preprocessing is None or self.labels is None:
            raise ValueError(f"{file} does not tell its preprocessing and labels, without which nothing is published.")
        return Metadata(
            self.architecture, self.config, self.preprocessing, tuple(LABELS.get(self.labels, self.labels)),
            measured.dataset,
            measured={
                "error": round(measured.top1_error, 2), "images": measured.images, "split": "test",
                "crop": _by(measured.crop), "selection": "as its zoo published it",
            },
            made={"source": self.source, "file": file}, licence=licence,
        )

    def __str__(self):
        canonical = CONFIGS[self.architecture]
        layout = [
            f"{field.name}={getattr(self.config, field.name)!r}" for field in dataclasses.fields(self.config)
            if getattr(self.config, field.name) != getattr(canonical, field.name)
        ]
        return (
            f"{self.architecture} from {self.source}: {self.parameters:,} parameters in {self.tensors} tensors, each "
            f"used once; {len(self.ignored)} ignored; {self.classes} classes\n"
            f"layout: {', '.join(layout) or 'as ours'}\n"
            f"preprocessing: {self.preprocessing or 'unknown'}\n"
            f"labels: {self.labels if isinstance(self.labels, str) else 'own' if self.labels else 'unknown'}"
        )


def convert(upstream, source, where, **network):
    """Returns (our network with the tensors of `upstream`, a `Report`)."""
    names = names_of(upstream.layers, upstream.first)
    theirs = {ours: name for name, ours in names.items()}

    def tensor(layer, variable):
        words = {ours: word for word, ours in upstream.variables[_kind(layer)].items()}
        return f"{theirs.get(layer, layer)}.{words[variable]}"

    def missing(keys):
        return [f"{tensor(*key)}: missing" for key in keys if key not in found]

    def check(problems):
        if problems:
            more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise ValueError(
                f"{where} does not hold the weights of a network that {source} publishes and this zoo has; nothing was "
                "loaded.\n  " + "\n  ".join(sorted(problems)[:10]) + more
            )

    found, ignored, problems = _rename(upstream, names)
    stages = [
        [(f"stage{s}_unit{u}_conv1", "kernel") for u in range(1, count + 1)]
        for s, count in enumerate(_units(found), start=1)
    ]
    check(problems + missing([("stem_conv", "kernel"), *chain(*stages), (files.HEAD, "kernel")]))
    unit = "bottleneck" if ("stage1_unit1_conv3", "kernel") in found else "basic"
    widths = [found[stage[0]].shape[-1] for stage in stages]
    config = NetworkConfig([len(stage) for stage in stages], widths, unit, **upstream.layout)
    architecture = builder_name(config)
    depth = sum(config.units) * len(UNITS[unit][0]) + 2
    if architecture is None or upstream.depth not in (None, depth):
        check([
            f"stages of {config.units} {unit} units of {config.widths} filters, which makes {depth} layers: "
            + ("the zoo has no such network" if architecture is None else f"{upstream.depth} layers are expected")
            + "; the file may be incomplete"
        ])

    channels, classes = found["stem_conv", "kernel"].shape[2], found[files.HEAD, "kernel"].shape[1]
    shape = image_shape(None, None, channels)
    model = ResNet(config, **{"input_shape": shape, "classes": classes, "name": architecture.lower()} | network)
    layers = [layer for layer in model.layers if layer.weights]
    wanted = {(layer.name, variable.name): tuple(variable.shape) for layer in layers for variable in layer.weights}
    check(missing(wanted) + [
        f"{tensor(*key)}: the network has no place for it" for key in found if key not in wanted
    ] + [
        f"{tensor(*key)}: expected {_by(shape)} in Keras's order, found {_by(found[key].shape)}"
        for key, shape in wanted.items() if key in found and shape != found[key].shape
    ])
    arrays = {layer.name: [found[layer.name, variable.name] for variable in layer.weights] for layer in layers}
    files.assign(model, arrays, where)
    labels = LABELS.get(upstream.labels, upstream.labels)
    named = labels and len(labels) == classes
    model.preprocessing, model.labels = upstream.preprocessing, labels if named else None
    return model, Report(
        source, architecture, config, classes, len(found), sum(array.size for array in found.values()), ignored,
        upstream.preprocessing, upstream.labels if named else None,
    )


def names_of(layers, first=(1, 1)):
    """Returns {their layer: ours}, for every unit that a network of the zoo may have; arguments as of `Upstream`."""
    most = max(max(config.units) for config in CONFIGS.values())
    stage, unit = first
    return {
        theirs.format(s=stage + s, u=unit + u, i=i): ours.format(s=1 + s, u=1 + u, i=i)
        for ours, theirs in layers.items()
        for s, u, i in (product(range(4), range(most), (1, 2, 3)) if "{" in theirs else [(0, 0, 1)])
    }


def _rename(upstream, names):
    """Returns {(our layer, variable): array in Keras's order}, the names that are ignored, and what is wrong."""
    found, ignored, problems = {}, [], []
    for name, array in upstream.tensors.items():
        theirs, _, word = name.rpartition(".")
        layer = names.get(theirs)
        if layer and word in IGNORED:
            ignored.append(name)
            continue
        variable = layer and upstream.variables[_kind(layer)].get(word)
        if upstream.variables is TORCH:
            array = _in_keras_order(array, layer)
        axes = (2 if layer == files.HEAD else 4) if variable == "kernel" else 1
        if not variable:
            problems.append(f"{name}: not a tensor of these networks")
        elif array.ndim != axes or array.dtype.kind != "f":
            problems.append(f"{name}: {axes} axes of floats expected, found shape {array.shape} of {array.dtype}")
        elif (layer, variable) in found:
            problems.append(f"{name}: a second tensor for the {variable} of {layer}")
        else:
            found[layer, variable] = array
    return found, tuple(ignored), problems


def _kind(layer):
    return "bn" if layer.rsplit("_", 1)[-1].startswith("bn") else "conv"


def _in_keras_order(array, layer):
    """From Torch's (out, in, height, width) and (out, in); the head may be a 1x1 conv there."""
    if layer == files.HEAD and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    return array.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim))


def _units(found):
    """Returns how many units each stage has, by the highest numbers there are."""
    units = {(1, 1)}
    for layer, _ in found:
        if match := re.match(r"stage(\d+)_unit(\d+)_", layer):
            units.add((int(match[1]), int(match[2])))
    return [max([1, *(u for s, u in units if s == stage)]) for stage in range(1, max(units)[0] + 1)]


def _by(shape):
    return "x".join(map(str, shape))
