"""From `weights=` to a file: bundled with the package, in the cache, on the Hub, of another zoo, or a path."""
import dataclasses
import fnmatch
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from keras_preact._support.paths import local
from keras_preact._support.settings import dtype_policy
from keras_preact.networks.architectures import CONFIGS, builder_name
from keras_preact.networks.config import NetworkConfig
from keras_preact.zoo import catalogue, hub, importers, index, releases
from keras_preact.zoo.described import About, about
from keras_preact.zoo.index import Weight
from keras_preact.zoo.metadata import Metadata


class Found(NamedTuple):
    """Weights, before their file is fetched.

    Args:
        address: what they are called, such as "hf://owner/name@commit".
        known: what is known of them; a `Weight` of the index does not say its config, None is a file without words.
        path: returns the path of the file, fetched and compared with its sha256 where it must be.
    """

    address: str | os.PathLike
    known: Weight | Metadata | About | None
    path: Callable[[], Path]

    @property
    def config(self) -> NetworkConfig | None:
        """The layout that they are of, where it is known."""
        return getattr(self.known, "config", None)

    def origin(self, architecture: str) -> str | None:
        """What the card of a network that is fine-tuned from them calls them; None of files of one's own."""
        if hub.is_address(self.address):
            return str(self.address)
        return None if _is_path(self.address) else f"{architecture}(weights='{self.address}')"


def resolve(weights: str | os.PathLike, architecture: str, config: NetworkConfig) -> Found:
    """Returns what `weights=` of a builder names, once it is known to be of that builder's network.

    Args:
        weights: a tag of the index, "hf://owner/name" or "hf://owner/name@revision", or the path of a file.
        architecture: name of the builder.
        config: its `NetworkConfig`.

    Raises:
        ValueError: there is no such tag or file, or it holds another network.
        OSError: it cannot be had from the Hub or its zoo, or is not the published one.
    """
    if not hub.is_address(weights) and not _is_path(weights):
        weight = index.find(architecture, weights)
        if isinstance(weight, Weight):
            return Found(weights, weight, functools.partial(_verified, weight))
        address, found = weight.file, _of_upstream(weight)
    else:
        address = weights
        found = of_repository(str(weights)) if hub.is_address(weights) else _of_file(weights, weights)
    if isinstance(found.known, Metadata):
        _check_config(architecture, config, address, found.known)
    elif found.known and builder_name(found.config) != architecture:
        raise ValueError(
            f"{address} holds weights of {builder_name(found.config)}. Received: the builder {architecture}"
        )
    return found._replace(address=weights)


def of_repository(address: str) -> Found:
    """Returns the weights that a repository of the Hub holds: ours, or one of timm's that is converted.

    Raises:
        ValueError: no such form of address.
        HubError: the repository cannot be had, or holds neither.
    """
    try:
        snapshot = hub.snapshot(address)
    except hub.NotOurs:
        return _of_file(address, _converted(address))
    pinned = f"{hub.PREFIX}{snapshot.repository}@{snapshot.commit}"
    return Found(pinned, snapshot.metadata, functools.partial(snapshot.file, hub.WEIGHTS))


def _of_file(address, path):
    return Found(address, about(path), lambda: local("weights", path))


def pull(name: str, tags: str = "*") -> list[Path]:
    """Fetches weights into the cache, for use without a network.

    Args:
        name: of a builder, or a pattern such as "PreAct*", for its weights that are published, by us and by other zoos,
            of which `list_weights` tells the licences; or "owner/name" or "owner/name@revision" for every file of a
            repository of ours, or for the weights of one of timm's.
        tags: of the weights of a builder, a tag or a pattern such as "*_tf2cv"; default all of them.

    Returns:
        The paths of the files.

    Raises:
        OSError: a file cannot be had, or is not the published one.
        ValueError: no model is named so, or there is nothing to fetch.

    Example:

    >>> [path.name for path in kp.pull("PreActResNet20", "cifar10")]
    ['preactresnet20-cifar10.weights.h5']
    """
    if "/" in name:
        try:
            snapshot = hub.snapshot(name)
        except hub.NotOurs:
            return [_converted(name)]
        return [snapshot.file(file) for file in snapshot.metadata.files]
    return [
        resolve(weight.tag, weight.architecture, CONFIGS[weight.architecture]).path() for weight in to_pull(name, tags)
    ]


def to_pull(name, tags="*"):
    """Returns the published weights that `pull` fetches, of the name of a builder or a pattern; raises as it does."""
    weights = [
        weight for weight in catalogue.list_weights(name) if weight.is_fetched and fnmatch.filter(weight.tags, tags)
    ]
    if not weights:
        tagged = "" if tags == "*" else f" tagged {tags!r}"
        raise ValueError(
            f"There are no weights of {', '.join(catalogue.matching(name))}{tagged}; `keras-preact list` shows whose "
            "there are."
        )
    return weights


def _is_path(weights):
    return isinstance(weights, os.PathLike) or str(weights).endswith((".h5", ".keras")) or os.sep in str(weights)


def _verified(weight):
    """Returns the path of the weight's file, once its sha256 is that of the index.

    The file that ships with the package comes first, then the cache, then the Hub.

    Raises:
        ValueError: the file that ships is missing or is not the published one.
        HubError: the file cannot be had from the Hub, or is not the published one.
    """
    path = index.folder() / weight.file
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


def _of_upstream(weight):
    """Returns the weights of another zoo, fetched and converted when they are first used.

    Raises:
        ValueError: they are not fetched; the message says how to get them.
        OSError: they cannot be had, or are not the published ones.
    """
    if hub.is_address(weight.file):
        return of_repository(weight.file)
    if weight.is_release:
        return _of_file(weight.file, releases.converted(
            weight.file, weight.hash, functools.partial(_convert, weight.source, name=None)
        ))
    name = f"{weight.architecture.lower()}-{weight.tag}.weights.h5"
    raise ValueError(
        f"The weights {weight.tag!r} of {weight.architecture} are published by another zoo, from where they are not "
        f"fetched. Download {weight.file}, run `keras-preact convert {weight.source} FILE --output {name}`, and give "
        f"weights={name!r}."
    )


def _converted(address):
    """Returns the path of the weights of a timm repository on the Hub, converted when they are first used."""
    repository, commit = hub.resolve(address)
    path = hub.converted(repository, commit)
    if not path.exists():
        folder = hub.listed(repository, commit, ("config.json", "model.safetensors"))
        path.parent.mkdir(parents=True, exist_ok=True)
        _convert("timm", folder, path, repository.split("/")[1])
    return path


def _convert(source, weights, path, name):
    with dtype_policy("float32"):  # the file is for all policies
        importers.convert(source, weights, name, path)


def _check_config(architecture, config, weights, published):
    if builder_name(published.config) == architecture:
        return  # perhaps in the layout of another zoo
    here, there = dataclasses.asdict(config), dataclasses.asdict(published.config)
    differences = [f"{name} is {there[name]!r} and {here[name]!r}" for name in here if here[name] != there[name]]
    if differences:
        raise ValueError(
            f"{weights!r} holds {published.architecture} and the builder is {architecture}: {'; '.join(differences)}. "
            f"Use that builder, or keras_preact.from_hub({weights.removeprefix(hub.PREFIX)!r})."
        )
