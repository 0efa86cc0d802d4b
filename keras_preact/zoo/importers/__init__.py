"""Weights of other zoos into our networks, one file a source, exactly or not at all."""
import os
from typing import Any

import keras

from keras_preact._support.checks import check_choice
from keras_preact._support.paths import existing
from keras_preact.zoo import described
from keras_preact.zoo.importers import (
    engine,
    image_classifiers,
    keras_applications,
    pytorchcv,
    timm,
    torch7,
    torchvision,
)
from keras_preact.zoo.importers.engine import Report as Report

SOURCES = {
    "timm": timm,
    "keras_applications": keras_applications,
    "pytorchcv": pytorchcv,
    "image_classifiers": image_classifiers,
    "torch7": torch7,
    "torchvision": torchvision,
}


def convert(
    source: str, weights: Any, name: str | None = None, output: str | os.PathLike | None = None, **network: Any
) -> tuple[keras.Model, Report]:
    """Returns our network with weights that another zoo published, and a report of what was done.

    The network has the layout of that zoo, such as where its stem pools and which of its convs have a stride or a bias,
    and the depth that the tensors tell. Every tensor is used exactly once and every variable is set, or nothing is.

    Args:
        source: where they come from: "timm", "keras_applications", "pytorchcv" (and tf2cv), "image_classifiers",
            "torch7" (fb.resnet.torch) or "torchvision" (and chenyaofo's and akamaster's networks for CIFAR).
        weights: what that zoo publishes.
            timm: the folder of a repository (model.safetensors or pytorch_model.bin, and config.json), a .safetensors
                or .pth file, or a state dict.
            keras_applications, image_classifiers: a model, or a .h5, .weights.h5 or .keras file.
            pytorchcv: a .pth file or a state dict, or a .h5 file of tf2cv.
            torch7: a .t7 file.
            torchvision: a .pth file or a state dict.
            What a training script saved around a state dict is passed over. Where it saved averages over the steps of
            training, too, as timm's "state_dict_ema", they are taken.
        name: what that zoo calls the network, such as "preresnet50b"; default what the file or its folder is called.
            Needed where tensors do not tell two networks apart.
        output: a .weights.h5 file to write. It tells its layout, preprocessing and labels, so that a builder takes it:
            `PreActResNet50(weights=output)`.
        **network: arguments of `ResNet`, such as input_shape and classifier_activation; default any height and width.

    Returns:
        (a `keras.Model` with its `preprocessing` and `labels`, None where unknown; a `Report`)

    Raises:
        ValueError: a file that is damaged, of another network, incomplete, or wants to run code; the message names the
            tensors. Nothing is loaded then.
        ImportError: a package that reads the file is missing.

    Example:

    >>> source = keras.applications.ResNet50V2(weights=None)
    >>> model, report = kp.convert("keras_applications", source, input_shape=(64, 64, 3))
    >>> model.output_shape
    (None, 1000)
    """
    check_choice("source", source, tuple(SOURCES))
    if output is not None and not os.fspath(output).endswith(".weights.h5"):
        raise ValueError(f"`output` must name a .weights.h5 file. Received: {output}")
    if isinstance(weights, (str, os.PathLike)):
        weights = existing("weights", weights)
        where, name = str(weights), weights.resolve().name if name is None else name
    elif isinstance(weights, SOURCES[source].OBJECTS):
        where, name = f"the given {type(weights).__name__}", name or ""
    else:
        raise TypeError(f"`weights` must be what {source!r} publishes, such as a path. Received: {weights!r}")
    upstream = SOURCES[source].load(weights, name)
    model, report = engine.convert(upstream, source, where, **network)
    if output is not None:
        described.write(output, model, report.config, report.preprocessing, report.labels)
    return model, report
