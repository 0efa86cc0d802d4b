"""Publishing on the Hugging Face Hub: one commit that holds everything, then read back and compared."""
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_preact._support import atomic
from keras_preact._support.paths import local
from keras_preact.data.preprocessing import normalize
from keras_preact.networks import files
from keras_preact.networks.architectures import CONFIGS
from keras_preact.networks.building import ResNet
from keras_preact.networks.carried import config_of
from keras_preact.networks.config import NetworkConfig
from keras_preact.training import runs
from keras_preact.zoo import card, hub
from keras_preact.zoo.metadata import Metadata

CARD, GOLDEN = "README.md", "golden.npz"
SELECTION = "last epoch"


class Publication(NamedTuple):
    """What `push_to_hub` published: the commit (None if nothing was), the size in bytes of each file, and the card."""

    repository: str
    commit: str | None
    files: dict
    card: str


def push_to_hub(
    source: str | os.PathLike | keras.Model,
    repository: str,
    metadata: Metadata | None = None,
    private: bool = False,
    revision: str = "main",
    dry_run: bool = False,
    folder: str | os.PathLike | None = None,
    labels: Sequence[str] | None = None,
) -> Publication:
    """Publishes a network on the Hugging Face Hub, reads it back and compares it.

    One commit holds Keras's own layout, which `keras.saving.load_model("hf://owner/name")` opens, and beside it
    keras_preact.json (a `Metadata` with the sha256 of every file), golden.npz (pixel values and the outputs they give),
    a model card and, of a run, its log and curve. What is there already is not committed again.

    Args:
        source: the folder of a finished training run, or a model.
        repository: "owner/name"; it is made if there is none.
        metadata: of a model, a `Metadata`; default what a network of the zoo tells itself, without an error, which
            the card then says was not measured. Of a run, what it logged is taken instead.
        private: whether only its owner sees the repository.
        revision: the branch; it is made if there is none.
        dry_run: whether to write all files and publish none.
        folder: where the files stay, for `hf upload` or to be read; default nowhere.
        labels: of a model without `metadata`, the name of each class; default `model.labels`.

    Returns:
        A `Publication`.

    Raises:
        ValueError: no finished run, a model that is not what `metadata` says, or does not tell its labels or
            preprocessing, or a `folder` that exists.
        OSError: the Hub does not take it, another commit was made meanwhile, what is there cannot be looked at or is of
            a newer keras_preact, or what the Hub gives back is not what was sent.

    Example:

    >>> model = kp.PreActResNet20(weights="cifar10")
    >>> kp.push_to_hub(model, "owner/name", dry_run=True).commit is None
    True
    """
    name, at = hub.parse(repository)
    if at:
        raise ValueError(f"Give the branch as `revision`. Received: {repository!r}")
    kept = local("folder", folder) if folder else None
    if kept and kept.exists():
        raise ValueError(f"`folder` must be a new folder; this one exists already: {kept}")
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Networks are published with the channels last: keras.config.set_image_data_format('channels_last'). "
            f"Received: {keras.config.image_data_format()!r}"
        )
    run = None if isinstance(source, keras.Model) else local("source", source)
    if run:
        source, metadata = _of_run(run)
    elif metadata is None:
        metadata = _of_model(source, labels)
    network, golden = _checked(source, metadata)
    with tempfile.TemporaryDirectory() as scratch:
        cache, new = Path(scratch, "cache"), Path(scratch, "new")
        head, before = (None, None) if dry_run else _prepared(name, revision, private, cache)
        metadata = _write(new, network, golden, metadata, run, name, before)
        files = {path.name: path.stat().st_size for path in sorted(new.iterdir())}
        commit = None if dry_run else _commit(new, metadata, name, revision, head, before)
        text = (new / CARD).read_text(encoding="utf-8")
        if commit:
            _verify(name, commit, metadata, cache)
        if kept:
            atomic.replace(kept, lambda path: shutil.copytree(new, path))
    return Publication(name, commit, files, text)


def _of_model(model, labels):
    """Returns what a network of the zoo tells of itself; nothing of it was measured."""
    config, preprocessing = config_of(model), getattr(model, "preprocessing", None)
    labels = labels or getattr(model, "labels", None)
    if config is None or preprocessing is None or not labels:
        raise ValueError(
            "A model without `metadata` must be a network of the zoo, with its `preprocessing` and `labels`. Received: "
            f"{model.name} with preprocessing={preprocessing} and labels={labels}"
        )
    names = [name for name, known in CONFIGS.items() if known == config]
    made = _base(getattr(model, "origin", None))
    return Metadata(names[0] if names else "custom", config, preprocessing, tuple(labels), made=made)


def _base(origin):
    """What the metadata say of the weights that a network was fine-tuned from, if they are known."""
    return {"base": origin} if origin else {}


def _of_run(folder):
    model, run = runs.load_run(folder)
    log = runs.read_log(folder / runs.LOG)
    if not log:
        raise ValueError(f"{folder} has no {runs.LOG}, which tells the error that is published with the network.")
    preprocessing = model.preprocessing
    crop = "x".join(map(str, preprocessing.size))
    if preprocessing.crop < 1:
        crop += f" of images whose shorter side is {round(min(preprocessing.size) / preprocessing.crop)}"
    return model, Metadata(
        run["model"], NetworkConfig(**run["config"]), preprocessing, tuple(run["labels"]), run["data"]["name"],
        measured={
            "error": float(log[-1]["test_error"]), "images": run["data"]["test_images"],
            "split": "held out of the training images" if run.get("hold_out") else "test", "crop": crop,
            "selection": SELECTION,
        },
        made=_base(run.get("base")) | {key: run[key] for key in ("recipe", "seed", "engine", "environment")},
    )


def _checked(model, metadata):
    """Returns the network of `metadata` with the weights of `model`, and pixel values with the outputs they give."""
    Metadata.from_json(metadata.to_json())
    network = _network(metadata)
    files.assign(network, {x.name: x.get_weights() for x in model.layers if x.weights}, f"the model {model.name}")
    images = np.random.default_rng(0).integers(0, 256, (2, *metadata.preprocessing.input_shape), dtype="uint8")
    golden = {"input": images, "output": _outputs(network, images, metadata)}
    if not _agree(_outputs(model, images, metadata), golden["output"]):
        raise ValueError(
            "The outputs of the model are not those of the network of `metadata` with its weights. It must be built "
            "from metadata.config, with a softmax at its end."
        )
    return network, golden


def _network(metadata):
    # The name that Keras would give the input counts those made before, and would change config.json.
    images = keras.Input(metadata.preprocessing.input_shape, name="images")
    return ResNet(metadata.config, input_tensor=images, classes=len(metadata.labels))


def _prepared(name, branch, private, cache):
    """Makes the repository and the branch, and returns its commit and the `hub.Snapshot` of it.

    Of a repository that is not of ours, or is damaged, the snapshot is None.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with hub.explained(name, branch):
        api.create_repo(name, private=private, exist_ok=True)
        if private and not api.repo_info(name).private:
            remedy = "Make it private in its settings first, or take another name."
            raise hub.HubError(name, branch, None, "the repository exists and is public", remedy)
        if branch != "main":
            api.create_branch(name, branch=branch, exist_ok=True)
    _, head = hub.resolve(f"{name}@{branch}", cache)
    try:
        snapshot = hub.snapshot(f"{name}@{head}", cache)
        snapshot.file(GOLDEN)
    except (hub.NotOurs, hub.Damaged, KeyError):
        snapshot = None
    return head, snapshot


def _write(folder, network, golden, metadata, run, name, before):
    """Writes every file of the repository into `folder`, each of them the same whenever it is written again."""
    network.save(folder, zipped=False)
    shutil.rmtree(folder / "assets", ignore_errors=True)  # what a .keras file carries; here our metadata tell it
    keras_metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    del keras_metadata["date_saved"]
    (folder / "metadata.json").write_text(json.dumps(keras_metadata), encoding="utf-8")
    np.savez(folder / GOLDEN, **_published_golden(before, golden) or golden)
    for part in (runs.LOG, runs.CURVE):
        if run and (run / part).exists():
            shutil.copyfile(run / part, folder / part)
    metadata = dataclasses.replace(metadata, files=dict.fromkeys(path.name for path in folder.iterdir()))
    (folder / CARD).write_text(card.write(metadata, name), encoding="utf-8")
    metadata = dataclasses.replace(metadata, files={path.name: hub.digest(path) for path in sorted(folder.iterdir())})
    text = metadata.to_json()
    (folder / hub.METADATA).write_text(text, encoding="utf-8")
    return Metadata.from_json(text)


def _published_golden(before, golden):
    """Returns the golden values that are published already, where only rounding tells them from `golden`."""
    if before:
        with np.load(before.file(GOLDEN), allow_pickle=False) as old:
            if np.array_equal(old["input"], golden["input"]) and _agree(old["output"], golden["output"]):
                return dict(old)
    return None


def _outputs(model, images, metadata):
    return keras.ops.convert_to_numpy(model(normalize(images, metadata.preprocessing), training=False))


def _agree(outputs, golden):
    return outputs.shape == golden.shape and np.allclose(outputs, golden, rtol=1e-3, atol=1e-5)


def _commit(folder, metadata, name, branch, head, before):
    """Makes the commit on top of `head`; the Hub refuses it where another one has come first."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    files = [path.name for path in sorted(folder.iterdir())]
    operations = [CommitOperationAdd(file, folder / file) for file in files]
    if before:
        operations += [CommitOperationDelete(file) for file in before.metadata.files if file not in files]
    with hub.explained(name, branch):
        return HfApi().create_commit(
            name, operations, commit_message=f"{metadata.architecture} {metadata.dataset}".strip(), revision=branch,
            parent_commit=head,
        ).oid


def _verify(name, commit, metadata, cache):
    snapshot = hub.snapshot(f"{name}@{commit}", cache)
    for file in metadata.files:
        snapshot.file(file)
    network = _network(snapshot.metadata)
    files.assign(network, files.read(snapshot.file(hub.WEIGHTS)), name)
    with np.load(snapshot.file(GOLDEN), allow_pickle=False) as golden:
        agree = _agree(_outputs(network, golden["input"], snapshot.metadata), golden["output"])
    if snapshot.metadata != metadata or not agree:
        raise hub.HubError(
            name, commit, GOLDEN if snapshot.metadata == metadata else hub.METADATA,
            "it was published, but what the Hub gives back is not what was sent", "Push again.",
        )
