"""The index: every weight that is published, ours and those of other zoos, and what it expects and reaches."""
import csv
import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from keras_preact.data.preprocessing import LABELS, Preprocessing
from keras_preact.zoo import hub


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
def entries():
    """Returns every published `Weight`."""
    rows = json.loads((folder() / "index.json").read_text())
    return tuple(Weight(**row | {"preprocessing": Preprocessing(**row["preprocessing"])}) for row in rows)


def find(architecture, tag):
    """Returns the `Weight` of that architecture and tag or, if we published none, the `Upstream`.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    tags = {weight.tag: weight for weight in (*upstream(), *entries()) if weight.architecture == architecture}
    if tag not in tags:
        elsewhere = sorted({weight.architecture for weight in entries() if weight.tag == tag})
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
