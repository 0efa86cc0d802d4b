"""One call for every format in which networks go into production; each is a room of this wing."""
import os
from collections.abc import Sequence
from typing import Any

import keras

from keras_preact._support.checks import check_choice
from keras_preact.data.preprocessing import Preprocessing
from keras_preact.exporting import files
from keras_preact.exporting.preparation import Exported
from keras_preact.exporting.savedmodel import export_savedmodel

FORMATS = ("savedmodel", *files.FORMATS)


def export(
    model: keras.Model,
    path: str | os.PathLike,
    format: str = "savedmodel",
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] | None = None,
    version: int | None = None,
    calibration: Any = None,
    overwrite: bool = False,
    activation: str | None = None,
) -> Exported:
    """Writes a network for production: simplified, compared with `model`, whole or not at all.

    "savedmodel" is for TF Serving, see `export_savedmodel`. The other formats have one input, `images`, uint8 of shape
    (n, height, width, channels) of exactly the size in `preprocessing`, which are normalized inside, and one output,
    the probabilities (n, classes) as float32. They have no strings: decoding, resizing and naming the classes is left
    to the client, for whom size, interpolation, crop and labels are in a JSON file beside, such as preact.onnx.json.

    Args:
        model: a network of the zoo, also with another head; of these other formats, in float32.
        path: of a SavedModel, the folder of versions; else of a file that ends in .onnx, .tflite, .xml or .pt2.
        format: "savedmodel"; "onnx"; "litert", float32; "litert_int8", weights and activations in eight bits;
            "openvino", whose weights are in a .bin file beside; or "torch", a program of `torch.export`. Keras on
            PyTorch writes "onnx" and "torch", on TensorFlow all but "torch".
        preprocessing: a `Preprocessing`; default `model.preprocessing`, which weights of the zoo set.
        labels: the name of each class; default `model.labels`.
        version: of a SavedModel; default the next.
        calibration: of "litert_int8", some hundred uint8 images like those to come, of the network's size, on which the
            ranges of the activations and the disagreement are measured.
        overwrite: whether what is there already is replaced.
        activation: what turns the outputs of `model` into probabilities: "softmax", of classes of which one is right,
            or "sigmoid", each for itself. Default: what its last layer says; logits say nothing, so give it for them.

    Returns:
        An `Exported`. Its disagreement is at most 1e-5, but that of "litert_int8" may be anything: look at it.

    Raises:
        ValueError: something that is missing, does not fit, or exists already.
        ImportError: a package that is missing.

    Example:

    >>> exported = kp.export(kp.PreActResNet20(weights="cifar10"), "preact.xml", format="openvino")
    >>> exported.path.name, exported.disagreement < 1e-5
    ('preact.xml', True)
    """
    check_choice("format", format, FORMATS)
    if format != "litert_int8":
        _check_without("calibration", calibration, "litert_int8")
    if format == "savedmodel":
        return export_savedmodel(
            model, path, version, preprocessing=preprocessing, labels=labels, overwrite=overwrite, activation=activation
        )
    _check_without("version", version, "savedmodel")
    return files.export_file(model, path, format, preprocessing, labels, calibration, overwrite, activation)


def _check_without(name, value, format):
    if value is not None:
        raise ValueError(f"`{name}` is for format={format!r}. Received: {value!r}"[:200])
