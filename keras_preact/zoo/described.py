"""Weights that tell what they are: files of ours with layout, preprocessing and labels beside the arrays."""
import dataclasses
import json
from typing import NamedTuple

import h5py

from keras_preact._support import atomic
from keras_preact._support.checks import from_values
from keras_preact.data.preprocessing import Preprocessing
from keras_preact.networks.config import NetworkConfig
from keras_preact.networks.files import reading, seal

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
    """What a file that `write` wrote tells beside its weights; preprocessing and labels may be None."""

    config: NetworkConfig
    preprocessing: Preprocessing | None
    labels: str | tuple | None


def about(path):
    """Returns the `About` of a file that `write` wrote, and None of others.

    Raises:
        ValueError: as `files.read`.
    """
    with reading(path) as path:
        if path.suffix == ".keras":
            return None
        with h5py.File(path, "r") as h5:
            if ABOUT not in h5:
                return None
            told = json.loads(h5[ABOUT].asstr()[()])
            config, preprocessing, labels = (told[key] for key in ("config", "preprocessing", "labels"))
    return About(
        from_values(NetworkConfig, config, path), preprocessing and from_values(Preprocessing, preprocessing, path),
        tuple(labels) if isinstance(labels, list) else labels,
    )
