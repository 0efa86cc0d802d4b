"""Files that tell what they are, ours and Keras's: layout, preprocessing and labels beside the arrays."""
import dataclasses
import json
import os
from typing import NamedTuple

import h5py
import keras

from keras_preact._support import atomic
from keras_preact._support.checks import from_values
from keras_preact.data.preprocessing import Preprocessing, for_model
from keras_preact.networks import carried
from keras_preact.networks.config import NetworkConfig
from keras_preact.networks.files import check_values, reading, seal

ABOUT = "keras_preact"  # the entry of the HDF5 file


def write(path, model, config, preprocessing, labels):
    """Saves the weights of `model` as a .weights.h5 file that tells its layout, preprocessing and labels.

    Args:
        path: of the file, which ends in .weights.h5.
        model: a network of the zoo.
        config: its `NetworkConfig`.
        preprocessing: a `Preprocessing` or None.
        labels: the name of a label set, a name for each class, or None.
    """
    about = {
        "config": dataclasses.asdict(config), "labels": labels,
        "preprocessing": preprocessing and dataclasses.asdict(preprocessing),
    }

    def save(new):
        model.save_weights(new)
        with h5py.File(new, "r+") as h5:
            h5[ABOUT] = json.dumps(about)
        seal(new)

    atomic.replace(path, save)


class About(NamedTuple):
    """What a file tells beside its weights; preprocessing and labels may be None."""

    config: NetworkConfig
    preprocessing: Preprocessing | None
    labels: str | tuple | None


def about(path):
    """Returns the `About` of a file that `write` wrote, or of a network of the zoo that was saved; None of others.

    Raises:
        ValueError: as `files.read`.
    """
    with reading(path) as path:
        if path.suffix == ".keras":
            told = carried.read(path)
        else:
            with h5py.File(path, "r") as h5:
                told = json.loads(h5[ABOUT].asstr()[()]) if ABOUT in h5 else {"config": None}
        if told["config"] is None:
            return None
        told = {part: told[part] for part in ("config", "preprocessing", "labels")}
    return About(from_values(NetworkConfig, told["config"], path), *_known(told, path))


def load_model(path: str | os.PathLike) -> keras.Model:
    """Opens a .keras file as `keras.saving.load_model` does, with the `preprocessing` and `labels` that it carries.

    `model.save` writes them into the file of a network of the zoo, and its preprocessing into that of any model that
    holds such a network or its layers. Set `model.labels` before you save a new head. Where layers before the network
    normalize its images, the `preprocessing` of the model is that of pixels as they are.

    Args:
        path: of the file.

    Returns:
        The model. What the file does not tell is None.

    Raises:
        ValueError: no such file, one that cannot be read, or one whose values are no weights: not finite, or negative
            variances.

    Example:

    >>> kp.PreActResNet20(weights="cifar10").save("cifar.keras")
    >>> kp.load_model("cifar.keras").labels[3]
    'cat'
    """
    if not str(path).endswith(".keras"):
        raise ValueError(f"`path` must name a .keras file; a builder takes files of weights. Received: {path}")
    with reading(path) as path:
        told = carried.read(path)
    try:
        model = keras.saving.load_model(path)
    except Exception as error:
        raise ValueError(f"Keras cannot open {path}: {error}") from error
    check_values(model, path)
    preprocessing, model.labels = _known(told, path)
    if preprocessing and not told["config"]:  # that of a network inside
        carried.carry_part(model, preprocessing)
        preprocessing = for_model(preprocessing, model)
        preprocessing = preprocessing and preprocessing.of_input(model.input_shape[1:])
    model.preprocessing = preprocessing
    model.origin = None  # a file of one's own
    if told["config"]:
        carried.carry(model, from_values(NetworkConfig, told["config"], path))
    return model


def _known(told, path):
    preprocessing, labels = told["preprocessing"], told["labels"]
    if not isinstance(labels, (str, list, type(None))):
        raise ValueError(f"{path} is damaged: its labels must be a name for each class. Received: {labels!r}")
    return (
        preprocessing and from_values(Preprocessing, preprocessing, path),
        tuple(labels) if isinstance(labels, list) else labels,
    )
