"""The index: every weight that is published, ours and those of other zoos, and what it expects and reaches."""
import csv
import dataclasses
import json
from functools import cache
from pathlib import Path

from keras_preact.data.preprocessing import LABELS, Preprocessing
from keras_preact.zoo import hub, releases

CITATIONS = {
    "keras_preact": "this package; the network is of He et al. 2016",
    "timm": "Ross Wightman, PyTorch Image Models, doi:10.5281/zenodo.4414861",
    "keras_applications": "keras.applications, of TensorFlow's TF-Slim models",
    "pytorchcv": "Oleg Semery, tf2cv of github.com/osmr/imgclsmob",
    "torch7": "Sam Gross and Michael Wilber, github.com/facebook/fb.resnet.torch",
}


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
    source = "keras_preact"
    is_fetched = True

    @property
    def tags(self):
        """What `weights=` takes for it."""
        return (self.tag,)

    @property
    def citation(self):
        return f"{CITATIONS[self.source]}; {self.made['epochs']} epochs of {self.made['recipe']}"

    @property
    def hash(self):
        return f"sha256:{self.sha256}"

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
def entries():
    """Returns every published `Weight`."""
    rows = json.loads((folder() / "index.json").read_text(encoding="utf-8"))
    return tuple(Weight(**row | {"preprocessing": Preprocessing(**row["preprocessing"])}) for row in rows)


@dataclasses.dataclass(frozen=True)
class Upstream:
    """A weight that another zoo published.

    Args:
        architecture, tag, dataset, licence: as of `Weight`.
        standard: whether the name of its data set alone means it, too, where none of ours is named so.
        source: as of `convert`.
        file: "hf://owner/name" or a URL, which is fetched and converted when it is first used, or what to download.
        hash: "algorithm:digits" of that file, unzipped, as its zoo tells it; empty if it does not.
        measured: as the zoo published it: error and top5_error in percent, None if not told; crop; selection.
    """

    architecture: str
    tag: str
    standard: bool
    dataset: str
    source: str
    file: str
    hash: str
    licence: str
    measured: dict

    @classmethod
    def of_row(cls, top1_error, top5_error, crop, selection, standard, **row):
        error, top5 = (float(value) if value else None for value in (top1_error, top5_error))
        measured = {"error": error, "top5_error": top5, "crop": crop, "selection": selection}
        return cls(standard=standard == "yes", measured=measured, **row)

    @property
    def tags(self):
        """What `weights=` takes for it."""
        ours = any((weight.architecture, weight.tag) == (self.architecture, self.dataset) for weight in entries())
        return (self.dataset, self.tag) if self.standard and not ours else (self.tag,)

    @property
    def citation(self):
        return CITATIONS[self.source]

    @property
    def is_release(self):
        """Whether its file is fetched from a URL."""
        return self.file.startswith("https://")

    @property
    def is_fetched(self):
        """Whether its file is fetched when it is first used, and not to be downloaded by the user."""
        return self.is_release or hub.is_address(self.file)

    @property
    def size(self):
        """Of the converted file in bytes, None until there is one."""
        return releases.size(self.file) if self.is_release else None

    @property
    def where(self):
        """Its file is "cached" or "remote"."""
        if self.is_release:
            cached = self.size is not None
        else:
            cached = hub.is_address(self.file) and hub.cached(*hub.parse(self.file), "model.safetensors")
        return "cached" if cached else "remote"


@cache
def upstream():
    """Returns every `Upstream`."""
    with open(folder() / "upstream.csv", newline="", encoding="utf-8") as file:
        return tuple(Upstream.of_row(**row) for row in csv.DictReader(file))


def of(architecture):
    """Returns the `Weight`s of an architecture and then the `Upstream`s."""
    return [weight for weight in (*entries(), *upstream()) if weight.architecture == architecture]


def find(architecture, tag):
    """Returns the `Weight` of that architecture and tag or, if we published none, the `Upstream`.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    weights = of(architecture)
    for weight in weights:
        if tag in weight.tags:
            return weight
    there = "; ".join(f"{_list(weight.tags)} of {weight.source}, {error(weight)}" for weight in weights)
    elsewhere = sorted({weight.architecture for weight in (*entries(), *upstream()) if tag in weight.tags})
    raise ValueError(
        "`weights` must be None, a tag of the index, 'hf://owner/name' or a path to a .weights.h5 or .keras file. "
        f"{architecture} has {there or 'no published weights'}. Received: {tag!r}"
        + (f", which there is for {', '.join(elsewhere)}." if elsewhere else ".")
    )


def percent(weight):
    """Returns the published error of a weight as "6.51 %", or "top-5 12.56 %" where its zoo tells no other."""
    measured = weight.measured
    return f"{measured['error']:.2f} %" if measured["error"] else f"top-5 {measured['top5_error']:.2f} %"


def error(weight):
    """Returns the published error of a weight and how it was selected: "6.51 % (best epoch on the test set)"."""
    return f"{percent(weight)} ({weight.measured['selection']})"


def published(architecture, dataset):
    """Returns the rows of published.csv, what others published for an architecture, in any case, and a data set."""
    with open(folder() / "published.csv", newline="", encoding="utf-8") as file:
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
    weights = [weight for weight in entries() if weight.tag == tag]
    if not weights:
        raise ValueError(
            f"`weights` must be a tag of the index: {_list({weight.tag for weight in entries()})}; of other weights "
            f"take `model.preprocessing` and `model.labels`. Received: {tag!r}"
        )
    if len({(weight.preprocessing, weight.labels) for weight in weights}) > 1:
        raise ValueError(
            f"Weights tagged {tag!r} differ in their preprocessing; name the architecture, `model=`, as one of "
            f"{_list(weight.architecture for weight in weights)}."
        )
    return weights[0]


def _list(names):
    return ", ".join(repr(name) for name in sorted(names))
