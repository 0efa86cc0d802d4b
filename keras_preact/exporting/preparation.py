"""What is exported of a model: its network, simplified, and what goes with it; and checking what was written."""
import contextlib
import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_preact._support.checks import check_choice
from keras_preact._support.paths import local
from keras_preact._support.settings import recursion_limit
from keras_preact.data.preprocessing import Preprocessing, check_for, normalize, to_data_format
from keras_preact.exporting.simplification import simplify_for_inference
from keras_preact.networks.graph import head_of, opened, strides_of

ACTIVATIONS = ("softmax", "sigmoid")
TOLERANCE = 1e-5
LEAST = 1e-35  # probability whose logarithm float32 can tell
# Of networks that compute in these types: a runtime rounds after other operations than Keras does.
MIXED_TOLERANCE = {"float16": 0.01, "bfloat16": 0.05}


class Exported(NamedTuple):
    """What an export wrote.

    Args:
        format: as of `export`.
        path: of the file, or of the folder of the version.
        size: of all that was written, in bytes.
        disagreement: the largest absolute difference of a probability, or of a feature relative to the largest one,
            from those of the Keras model.
        logarithms: the largest difference of the logarithm of a probability, relative to the largest logarithm, which
            tells logits apart where the probabilities are near 0 and 1.
    """

    format: str
    path: Path
    size: int
    disagreement: float
    logarithms: float


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A model ready for export.

    Args:
        model: as it was given.
        network: normalized images to {"features": those the classifier takes, "probabilities": if there is one},
            simplified.
        features: normalized images to features, not simplified.
        preprocessing: a `Preprocessing`.
        labels: the name of each class; None without a classifier.
        activation: what is applied to the outputs of `model`, "softmax" or "sigmoid"; None if they are probabilities.
    """

    model: keras.Model
    network: keras.Model
    features: keras.Model
    preprocessing: Preprocessing
    labels: tuple | None
    activation: str | None

    @property
    def tolerance(self):
        """The largest `disagreement` that is rounding."""
        return max(MIXED_TOLERANCE.get(layer.compute_dtype, TOLERANCE) for layer in self.network.layers)

    @property
    def shape(self):
        """Of an image: (height, width, channels)."""
        return (*self.preprocessing.size, len(self.preprocessing.mean))

    @property
    def metadata(self):
        """What a client may want to know, as plain JSON."""
        return {
            "network": self.model.name, "preprocessing": dataclasses.asdict(self.preprocessing), "labels": self.labels,
        }

    def expected(self, images, features=False):
        """Returns what `model` itself gives for uint8 images (batch, height, width, channels) of its size.

        {"probabilities": if there is a classifier, "features": if they are asked for}.
        """
        x = to_data_format(normalize(images, self.preprocessing, "channels_last"))
        found = {"features": _values(self.features, x)} if features else {}
        if "probabilities" in self.network.output:
            outputs = _values(self.model, x)
            found["probabilities"] = PROBABILITIES[self.activation](outputs.astype("float64"))
        if not all(np.isfinite(value).all() for value in found.values()):
            raise ValueError(f"{self.model.name} gives values that are not finite: train it, or load weights, first.")
        return found


def _values(model, x):
    # Layer by layer TensorFlow would hold another five times the memory of the weights.
    return keras.ops.convert_to_numpy(model.predict_on_batch(x))


def _softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


# Of the outputs of a model, by NumPy: what an export is compared with must not come from what is exported.
PROBABILITIES = {
    None: lambda outputs: outputs, "softmax": _softmax, "sigmoid": lambda logits: 0.5 + 0.5 * np.tanh(logits / 2),
}


def probabilities_of(model, activation=None):
    """Returns a call from the outputs of `model`, an array, to probabilities.

    Args:
        model: as of `prepare`.
        activation: as of `export`.

    Raises:
        ValueError: outputs whose meaning is not known.
    """
    return PROBABILITIES[_activation(model, head_of(opened(model)), activation)]


def require_backend(able=("tensorflow",), format="savedmodel"):
    """Raises ValueError on another backend than those that are `able` to write a format."""
    if keras.backend.backend() not in able:
        raise ValueError(
            f"format={format!r} is written by Keras on {' or '.join(able)}; weights and .keras files are the same on "
            f"every backend: pip install 'keras_preact[{able[0]}]', and set KERAS_BACKEND={able[0]}. "
            f"Received: {keras.backend.backend()}"
        )


def prepare(model, preprocessing=None, labels=None, classifies=True, keep_relu=False, activation=None):
    """Returns the `Prepared` of `model`.

    Args:
        model: a functional or Sequential `keras.Model` with one input and one output; models may be inside it.
        preprocessing: a `Preprocessing`; default `model.preprocessing`.
        labels: the name of each class; default `model.labels`.
        classifies: whether probabilities are asked for.
        keep_relu: as of `simplify_for_inference`.
        activation: as of `export`.

    Raises:
        ValueError: something that is asked for and missing, or does not fit.
    """
    preprocessing = preprocessing or getattr(model, "preprocessing", None)
    if not isinstance(preprocessing, Preprocessing):
        raise ValueError(
            f"{model.name} does not say how its images were preprocessed: give `preprocessing`, a "
            f"keras_preact.Preprocessing, or set model.preprocessing. Received: {preprocessing!r}"
        )
    check_for(preprocessing, model)
    whole = opened(model)
    if len(whole.inputs) != 1 or len(whole.outputs) != 1:
        raise ValueError(
            f"`model` must have one input and one output. Received: {len(whole.inputs)} and {len(whole.outputs)}"
        )
    head = head_of(whole)
    with recursion_limit(len(whole.layers)):
        features = keras.Model(whole.inputs[0], _features(head.features))
        outputs = {"features": features.outputs[0]}
        if classifies:
            activation = _activation(model, head, activation)
            outputs["probabilities"] = _probabilities(whole.outputs[0], activation)
        network = keras.Model(whole.inputs[0], outputs, name=model.name)
    _check_size(network, preprocessing)
    if classifies:
        labels = _checked_labels(model, labels if labels is not None else getattr(model, "labels", None))
    with contextlib.suppress(ValueError):  # a layer that cannot be copied
        network = simplify_for_inference(network, keep_relu)
    return Prepared(model, network, features, preprocessing, labels if classifies else None, activation)


def _features(tensor):
    """Returns features of shape (batch, features)."""
    return keras.layers.GlobalAveragePooling2D(name="features")(tensor) if len(tensor.shape) == 4 else tensor


def _activation(model, head, given):
    """Returns which of `ACTIVATIONS` turns the outputs of `model` into probabilities, None where they are some.

    Raises:
        ValueError: outputs whose meaning is not known, or contradicts what is `given`.
    """
    classes = model.output_shape[-1]
    if given is not None:
        check_choice("activation", given, ACTIVATIONS)
    if len(model.output_shape) != 2 or head.dense is None and head.activation is None and given is None:
        raise ValueError(
            f"{model.name} ends without a classifier, so that it has no probabilities; build it with its top, or call "
            "export_savedmodel with signatures=('features',)."
        )
    if (given or head.activation) == "softmax" and classes == 1:
        raise ValueError(
            f"{model.name} has one output, of which a softmax is always 1: give activation='sigmoid' if it is the "
            "logit of one class. Networks for regression are not exported."
        )
    if head.activation in ACTIVATIONS and given in (None, head.activation):
        return None
    if head.activation not in (None, "linear"):
        raise ValueError(
            f"{model.name} must end with logits, or with a softmax or sigmoid, of which `activation` is the name. "
            f"Received: activation={given!r}, and a network that ends with {head.activation!r}"
        )
    if given is None:
        raise ValueError(
            f"{model.name} does not say what its {classes} outputs mean, which end without an activation: give "
            "activation='softmax' if they are logits of classes of which one is right, 'sigmoid' if they are logits of "
            "which each is for itself. Networks for regression are not exported."
        )
    return given


def _probabilities(outputs, activation):
    if activation is None:
        return outputs
    return keras.layers.Activation(activation, name="probabilities", dtype="float32")(outputs)


def _check_size(network, preprocessing):
    axis = -1 if keras.config.image_data_format() == "channels_last" else 1
    shape = list(network.input_shape)
    channels, sides = shape.pop(axis), shape[1:]
    size, wanted = preprocessing.size, len(preprocessing.mean)
    if channels != wanted or any(side not in (None, given) for side, given in zip(sides, size)):
        raise ValueError(
            f"The network takes images of shape {network.input_shape[1:]}, and `preprocessing` gives "
            f"{size[0]}x{size[1]} pixels of {wanted} channels. Build it for them, or with height and width None."
        )
    stride = max(strides_of(network).values())
    if min(size) < stride:
        raise ValueError(
            f"This network's last feature map has 1/{stride} of the height and width of the input, so the size of "
            f"`preprocessing` must be at least {stride} pixels. Received: {size[0]}x{size[1]}"
        )


def _checked_labels(model, labels):
    classes = model.output_shape[-1]
    if labels is None:
        raise ValueError(
            f"{model.name} does not name its classes: give `labels`, a name for each of the {classes}, or set "
            "model.labels."
        )
    if isinstance(labels, str) or len(labels) != classes or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"`labels` must be a text for each of the {classes} classes. Received: {labels!r}")
    return tuple(labels)


def samples(shape):
    """Returns uint8 images to try an export on, each of `shape`: gradual ones, as photographs are, and noise."""
    gradual = np.indices(shape).sum(0) * 255 / (sum(shape) - len(shape))
    noise = np.random.default_rng(0).integers(0, 256, shape)
    return np.stack([gradual, noise, 255 - gradual]).astype("uint8")


def differences(found, expected):
    """Returns how far two dicts of "features" and "probabilities" differ: (disagreement, logarithms) of `Exported`."""
    found = {name: np.asarray(value, "float64") for name, value in found.items()}
    disagreements = {name: np.abs(value - expected[name]).max() for name, value in found.items()}
    if "features" in found:
        disagreements["features"] /= max(np.abs(expected["features"]).max(), 1)
    logarithms = 0.0
    if "probabilities" in found:
        told = expected["probabilities"] > LEAST
        pair = [np.log(np.maximum(value["probabilities"], LEAST / 1000)[told]) for value in (found, expected)]
        logarithms = np.abs(pair[0] - pair[1]).max() / max(np.abs(pair[1]).max(), 1)
    return float(max(disagreements.values())), float(logarithms)


def check(format, differences, tolerance):
    """Raises ValueError where `differences` are more than rounding, of which logarithms have a hundred times more."""
    disagreement, logarithms = differences
    for what, found, allowed in (
        ("", disagreement, tolerance), (" in the logarithms of its probabilities", logarithms, 100 * tolerance),
    ):
        if not found <= allowed:
            raise ValueError(
                f"What {format} computes differs from the Keras model by {found:.2g}{what}, and {allowed:g} is "
                "allowed; nothing was written. Try another version of the exporter."
            )


def target_of(path):
    """Returns the path that an export is asked for.

    Raises:
        ValueError: no path of this machine, or one that TensorFlow and the runtimes cannot be told, which take UTF-8.
    """
    target = local("path", path)
    try:
        str(target).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"`path` must be UTF-8. Received: {os.fsencode(target)!r}; in a locale of ASCII names set PYTHONUTF8=1."
        ) from error
    return target


def check_free(target, overwrite):
    """Raises ValueError where there is something at `target` already."""
    if target.exists() and not overwrite:
        raise ValueError(f"{target} exists already: give another path or version, or overwrite=True.")


def size_of(path):
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
