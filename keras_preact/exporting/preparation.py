"""What is exported of a model: its network, simplified, and what goes with it; and checking what was written."""
import contextlib
import dataclasses
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_preact._support.settings import recursion_limit
from keras_preact.data.preprocessing import Preprocessing, normalize, to_data_format
from keras_preact.exporting.simplification import simplify_for_inference
from keras_preact.networks.graph import strides_of

TOLERANCE = 1e-5
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
    """

    format: str
    path: Path
    size: int
    disagreement: float


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A model ready for export.

    Args:
        model: as it was given.
        network: normalized images to {"features": those the classifier takes, "probabilities": if there is one},
            simplified.
        preprocessing: a `Preprocessing`.
        labels: the name of each class; None without a classifier.
    """

    model: keras.Model
    network: keras.Model
    preprocessing: Preprocessing
    labels: tuple | None

    @property
    def tolerance(self):
        """The largest `disagreement` that is rounding."""
        return max(MIXED_TOLERANCE.get(layer.compute_dtype, TOLERANCE) for layer in self.network.layers)

    @property
    def metadata(self):
        """What a client may want to know, as plain JSON."""
        return {
            "network": self.model.name, "preprocessing": dataclasses.asdict(self.preprocessing), "labels": self.labels,
        }

    def expected(self, images):
        """Returns what `model` itself gives for uint8 images (batch, height, width, channels) of its size."""
        outputs = _outputs(self.model)
        with recursion_limit(len(self.model.layers)):
            model = keras.Model(self.model.inputs[0], outputs)
        x = to_data_format(normalize(images, self.preprocessing, "channels_last"))
        found = {name: keras.ops.convert_to_numpy(value) for name, value in model(x, training=False).items()}
        if not all(np.isfinite(value).all() for value in found.values()):
            raise ValueError(f"{self.model.name} gives values that are not finite: train it, or load weights, first.")
        return found


def prepare(model, preprocessing=None, labels=None, classifies=True, keep_relu=False):
    """Returns the `Prepared` of `model`.

    Args:
        model: a `keras.Model` with one input and one output.
        preprocessing: a `Preprocessing`; default `model.preprocessing`.
        labels: the name of each class; default `model.labels`.
        classifies: whether probabilities are asked for.
        keep_relu: as of `simplify_for_inference`.

    Raises:
        ValueError: something that is asked for and missing, or does not fit; another backend than TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Networks are exported through TensorFlow; weights and .keras files are the same on every backend: "
            "pip install 'keras_preact[export]', and set KERAS_BACKEND=tensorflow. "
            f"Received: {keras.backend.backend()}"
        )
    preprocessing = preprocessing or getattr(model, "preprocessing", None)
    if not isinstance(preprocessing, Preprocessing):
        raise ValueError(
            f"{model.name} does not say how its images were preprocessed: give `preprocessing`, a "
            f"keras_preact.Preprocessing. Received: {preprocessing!r}"
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"`model` must have one input and one output. Received: {len(model.inputs)} and {len(model.outputs)}"
        )
    outputs = _outputs(model)
    if not classifies:
        outputs.pop("probabilities", None)
    elif "probabilities" not in outputs:
        raise ValueError(
            f"{model.name} ends without a classifier, so that it has no probabilities; build it with its top, or call "
            "export_savedmodel with signatures=('features',)."
        )
    with recursion_limit(len(model.layers)):
        network = keras.Model(model.inputs[0], outputs, name=model.name)
    _check_size(network, preprocessing)
    if classifies:
        labels = _checked_labels(model, labels if labels is not None else getattr(model, "labels", None))
    with contextlib.suppress(ValueError):  # layers that are used more than once stay as they are
        network = simplify_for_inference(network, keep_relu)
    return Prepared(model, network, preprocessing, labels if classifies else None)


def _outputs(model):
    """Returns the tensors of `model` that are exported, by name."""
    (output,) = model.outputs
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    if len(output.shape) == 4:
        pool = keras.layers.GlobalAveragePooling2D(name="features")
        return {"features": pool(output)}
    if not dense:
        return {"features": output}
    logits = model.layers[-1] is dense[-1] and dense[-1].activation is keras.activations.linear
    if logits:
        output = keras.layers.Softmax(name="probabilities", dtype="float32")(output)
    return {"features": dense[-1].input, "probabilities": output}


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
        raise ValueError(f"{model.name} does not name its classes: give `labels`, a name for each of the {classes}.")
    if isinstance(labels, str) or len(labels) != classes or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"`labels` must be a text for each of the {classes} classes. Received: {labels!r}")
    return tuple(labels)


def disagreement(found, expected):
    """Returns the largest difference between two dicts of "features" and "probabilities", as `Exported` tells it."""
    differences = {name: np.abs(np.asarray(found[name], "float64") - expected[name]).max() for name in found}
    if "features" in found:
        differences["features"] /= max(np.abs(expected["features"]).max(), 1)
    return float(max(differences.values()))


def check(exported, tolerance):
    """Raises ValueError where the disagreement is more than rounding."""
    if not exported.disagreement <= tolerance:
        raise ValueError(
            f"What {exported.format} computes differs from the Keras model by {exported.disagreement:.2g}, and "
            f"{tolerance:g} is allowed; nothing was left at {exported.path}. Try another version of the exporter."
        )


def check_free(target, overwrite):
    """Raises ValueError where there is something at `target` already."""
    if target.exists() and not overwrite:
        raise ValueError(f"{target} exists already: give another path or version, or overwrite=True.")


def size_of(path):
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
