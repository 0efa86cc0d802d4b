"""The index of published weights, and reading, checking and assigning them."""
import csv
import dataclasses
import json
import os
import zipfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from keras_preact.data.preprocessing import LABELS, Preprocessing
from keras_preact.networks.building import NetworkConfig
from keras_preact.networks.units import channel_axis
from keras_preact.zoo import hub

HEAD = "predictions"
ABOUT = "keras_preact"  # what a file written by `write` tells beside its weights


@dataclasses.dataclass(frozen=True)
class Weight:
    """A published weight: where it is, what it expects, how it was made and what it reaches.

    Args:
        architecture: name of the builder.
        tag: what `weights=` takes; the data set it was trained on, and the recipe if there are several.
        dataset: the data set it was trained on.
        file: name of the .weights.h5 file where it ships with the package.
        size: of the file in bytes.
        sha256: of the file.
        repository, revision: on the Hugging Face Hub, "owner/name" and a commit, where the same file is
            model.weights.h5; None until published.
        preprocessing: a `Preprocessing`.
        labels: name of the label set.
        licence: SPDX name.
        made: recipe, seed, epochs, commit, hardware, date.
        measured: error in percent, split, crop, epoch.
    """

    architecture: str
    tag: str
    dataset: str
    file: str
    size: int
    sha256: str
    repository: str | None
    revision: str | None
    preprocessing: Preprocessing
    labels: str
    licence: str
    made: dict
    measured: dict

    @property
    def classes(self):
        return len(LABELS[self.labels])

    @property
    def where(self):
        """Its file is "bundled" with the package, "cached" from the Hub, or "remote"."""
        if (folder() / self.file).is_file():
            return "bundled"
        cached = self.repository and hub.cached(self.repository, self.revision, hub.WEIGHTS)
        return "cached" if cached else "remote"


def folder():
    """Returns the folder of the weights that ship with the package, installed or in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "weights"
    return installed if installed.is_dir() else package.parent / "weights"


@cache
def index():
    """Returns every published `Weight`."""
    entries = json.loads((folder() / "index.json").read_text())
    return tuple(Weight(**entry | {"preprocessing": Preprocessing(**entry["preprocessing"])}) for entry in entries)


def find(architecture, tag):
    """Returns the `Weight` of that architecture and tag or, if we published none, the `Upstream`.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    tags = {weight.tag: weight for weight in (*upstream(), *index()) if weight.architecture == architecture}
    if tag not in tags:
        elsewhere = sorted({weight.architecture for weight in index() if weight.tag == tag})
        raise ValueError(
            "`weights` must be None, a tag of the index, 'hf://owner/name' or a path to a .weights.h5 or .keras file. "
            f"{architecture} has {_list(tags) or 'no published weights'}. Received: {tag!r}"
            + (f", which there is for {', '.join(elsewhere)}." if elsewhere else ".")
        )
    return tags[tag]


class Upstream(NamedTuple):
    """A weight that another zoo published.

    Args:
        architecture, tag: as of `Weight`.
        source: as of `convert`.
        file: "hf://owner/name", which is fetched and converted when it is first used, or a URL to download by hand.
        hash: of that file, as its zoo tells it; empty if it does not.
    """

    architecture: str
    tag: str
    source: str
    file: str
    hash: str


@cache
def upstream():
    """Returns every `Upstream`."""
    with open(folder() / "upstream.csv", newline="") as file:
        return tuple(Upstream(**row) for row in csv.DictReader(file))


def published(architecture, dataset):
    """Returns the rows of published.csv, what others published for an architecture, in any case, and a data set."""
    with open(folder() / "published.csv", newline="") as file:
        return [
            row for row in csv.DictReader(file)
            if (row["network"].lower(), row["dataset"]) == (architecture.lower(), dataset.removesuffix("2012"))
        ]


def describe(tag, architecture=None):
    """Returns the `Weight` that tells the preprocessing and labels of `tag`.

    Raises:
        ValueError: no such tag, or several weights of that tag differ, so that the architecture must be named.
    """
    if architecture is not None:
        weight = find(architecture, tag)
        if isinstance(weight, Upstream):
            raise ValueError(
                f"What the weights {tag!r} of {architecture} expect comes with their file: take `model.preprocessing` "
                f"and `model.labels` of {architecture}(weights={tag!r})."
            )
        return weight
    weights = [weight for weight in index() if weight.tag == tag]
    if not weights:
        raise ValueError(
            f"`weights` must be a tag of the index: {_list({weight.tag for weight in index()})}; of other weights take "
            f"`model.preprocessing` and `model.labels`. Received: {tag!r}"
        )
    if len({(weight.preprocessing, weight.labels) for weight in weights}) > 1:
        raise ValueError(
            f"Weights tagged {tag!r} differ in their preprocessing; name the architecture, `model=`, as one of "
            f"{_list(weight.architecture for weight in weights)}."
        )
    return weights[0]


def is_path(weights):
    return isinstance(weights, os.PathLike) or str(weights).endswith((".h5", ".keras")) or os.sep in str(weights)


def verified(weight):
    """Returns the path of the weight's file, once its sha256 is that of the index.

    The file that ships with the package comes first, then the cache, then the Hub.

    Raises:
        ValueError: the file that ships is missing or is not the published one.
        HubError: the file cannot be had from the Hub, or is not the published one.
    """
    path = folder() / weight.file
    remedy = "Install the package again."
    if not path.is_file():
        if weight.repository:
            return hub.fetch(weight.repository, weight.revision, hub.WEIGHTS, weight.sha256)
        raise ValueError(f"The weights {weight.tag!r} of {weight.architecture} are missing: {path}. {remedy}")
    found = hub.digest(path)
    if found != weight.sha256:
        raise ValueError(
            f"The weights {weight.tag!r} of {weight.architecture} are damaged: {path} has {path.stat().st_size} bytes "
            f"and sha256 {found}, and the published file has {weight.size} bytes and {weight.sha256}. {remedy}"
        )
    return path


def read(path):
    """Returns {layer name: its arrays in Keras's order} of a .weights.h5 or .keras file; no code in it is run.

    Raises:
        ValueError: no such file, another kind of file, or one that cannot be read to its end.
    """
    with _reading(path) as path:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as member:
                return _layers(member)
        return _layers(path)


@contextmanager
def _reading(path):
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"`weights` names a file that does not exist: {path}. A repository of the Hub is 'hf://owner/name'; the "
            "folder of a training run is what `load_run` takes."
        )
    if not path.name.endswith((".weights.h5", ".keras")):
        raise ValueError(f"`weights` must name a .weights.h5 or .keras file. Received: {path}")
    try:
        yield path
    except (OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} cannot be read as Keras weights; it may be truncated or damaged: {error}. "
            "Copy or download it again."
        ) from error


def _layers(file):
    layers = {}
    with h5py.File(file, "r") as h5:
        for group in h5["layers"].values():
            variables = group["vars"]
            if len(variables):
                if "name" not in variables.attrs:
                    raise KeyError("its layers have no names, as Keras older than 3.8 leaves them")
                layers[variables.attrs["name"]] = [array(h5, variables[str(i)]) for i in range(len(variables))]
    return layers


def channels(layers):
    """Returns the number of channels of the images that weights, as `read` returns them, were trained on, or None."""
    return layers["stem_conv"][0].shape[2] if "stem_conv" in layers else None


def completed(shape, layers):
    """Returns `shape`, of an image or None, with the channels that the weights were trained on where it has None."""
    axis = 2 if channel_axis() == -1 else 0
    return shape and tuple(channels(layers) if i == axis and n is None else n for i, n in enumerate(shape))


def array(h5, dataset):
    # HDF5 can take values from any file of the machine, or claim more of them than there are.
    if dataset.file != h5 or dataset.external or dataset.id.get_storage_size() < dataset.nbytes:
        raise KeyError(f"the values of {dataset.name} are not in it")
    return np.array(dataset)


def write(path, model, config, preprocessing, labels):
    """Saves the weights of `model` as a .weights.h5 file that tells its layout, preprocessing and labels.

    Args:
        path: of the file, which ends in .weights.h5.
        model: a network of the zoo.
        config: its `NetworkConfig`.
        preprocessing: a `Preprocessing` or None.
        labels: the name of a label set, a name for each class, or None.
    """
    path = Path(path)
    new = path.with_name(f"new-{os.getpid()}-{path.name}")  # several processes may write the same
    model.save_weights(new)
    about = {
        "config": dataclasses.asdict(config), "labels": labels,
        "preprocessing": preprocessing and dataclasses.asdict(preprocessing),
    }
    with h5py.File(new, "r+") as h5:
        h5[ABOUT] = json.dumps(about)
    os.replace(new, path)


class About(NamedTuple):
    """What a file that `write` wrote tells beside its weights; preprocessing and labels may be None."""

    config: NetworkConfig
    preprocessing: Preprocessing | None
    labels: str | tuple | None


def about(path):
    """Returns the `About` of a file that `write` wrote, and None of others.

    Raises:
        ValueError: as `read`.
    """
    with _reading(path) as path:
        if path.suffix == ".keras":
            return None
        with h5py.File(path, "r") as h5:
            if ABOUT not in h5:
                return None
            told = json.loads(h5[ABOUT].asstr()[()])
    labels = told["labels"]
    return About(
        NetworkConfig(**told["config"]), told["preprocessing"] and Preprocessing(**told["preprocessing"]),
        tuple(labels) if isinstance(labels, list) else labels,
    )


def assign(model, layers, source, keep_head=False):
    """Sets the weights of `model`, all of them or, where anything does not fit, none.

    Args:
        model: a network of the zoo.
        layers: as `read` returns them.
        source: what to call them in errors.
        keep_head: whether the layer "predictions" keeps the values it has.

    Raises:
        ValueError: layers that are missing, left over, or of other shapes; they are named.
    """
    targets = {layer.name: layer.weights for layer in model.layers if layer.weights}
    sources = dict(layers)
    if keep_head:
        targets.pop(HEAD, None)
    if HEAD not in targets:
        sources.pop(HEAD, None)
    problems = [f"{name}: not in the file" for name in targets if name not in sources]
    problems += [f"{name}: in the file, not in the network" for name in sources if name not in targets]
    for name in targets.keys() & sources.keys():
        wanted = [tuple(variable.shape) for variable in targets[name]]
        found = [array.shape for array in sources[name]]
        if wanted != found:
            problems.append(f"{name}: the network has shapes {_shapes(wanted)}, the file {_shapes(found)}")
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise ValueError(
            f"The weights in {source} do not fit {model.name}; nothing was loaded. "
            "Build the network they were saved from (its builder, unit order and number of channels).\n  "
            + "\n  ".join(sorted(problems)[:10]) + more
        )
    for name, variables in targets.items():
        for variable, array in zip(variables, sources[name]):
            variable.assign(array)


def _shapes(shapes):
    return ", ".join("x".join(map(str, shape)) for shape in shapes)


def _list(names):
    return ", ".join(repr(name) for name in sorted(names))
