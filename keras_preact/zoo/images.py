"""Images in and labels out, as a weight that is named by its tag wants them."""
import warnings
from typing import Any

import keras
import numpy as np

from keras_preact.data import preprocessing
from keras_preact.zoo import index

DEFAULT = "cifar10"


def preprocess_input(x: Any, weights: Any = None, model: str | None = None, data_format: str | None = None) -> Any:
    """Normalizes images as `weights` were trained: (x / 255 - mean) / std. The argument itself stays as it is.

    A model knows what its weights were trained with:

    >>> model = kp.PreActResNet20(weights="cifar10")
    >>> model.predict(kp.preprocess_input(images, model), verbose=0).shape == (len(images), 10)
    True

    Args:
        x: array or tensor of pixel values from 0 to 255, uint8 or float, of shape (..., height, width, 3), or
            (..., 3, height, width) if the data format is "channels_first".
        weights: a model of ours with weights, a `Preprocessing`, or a tag that `list_weights` names; default "cifar10".
        model: the name of the builder, where the weights of one tag differ.
        data_format: default Keras's `image_data_format`.

    Returns:
        float32 of the shape of `x`.

    Raises:
        ValueError: an unknown tag, a model that does not know its preprocessing, or another number of channels.

    Warns:
        UserWarning: `weights` were not given, and the images are not of CIFAR-10's size.
    """
    known, shape = _preprocessing(weights, model), preprocessing.shape_of(x)
    if weights is None and shape and not _has_size(shape, known.size):
        _warn_of_default(f"These images, of shape {shape}, are normalized")
    return preprocessing.normalize(x, known, data_format)


def preprocessing_layer(weights: Any = None, model: str | None = None) -> keras.layers.Layer:
    """Returns the layer that normalizes images as `weights` were trained, as `preprocess_input` does.

    It is Keras's own `Rescaling`, so that a model that has it inside takes pixels and opens without this package.

    Args:
        weights: a model of ours with weights, a `Preprocessing`, or a tag that `list_weights` names; default "cifar10".
        model: the name of the builder, where the weights of one tag differ.

    Returns:
        A layer from images of pixel values from 0 to 255, (batch, height, width, 3) or, if Keras's image data format is
        "channels_first", (batch, 3, height, width), to float32.

    Raises:
        ValueError: an unknown tag, or a model that does not know its preprocessing.

    Example:

    >>> model = kp.PreActResNet20(weights="cifar10")
    >>> of_pixels = keras.Sequential([keras.Input((32, 32, 3)), kp.preprocessing_layer(model), model])
    >>> of_pixels.predict(images, verbose=0).shape == (len(images), 10)
    True
    """
    return preprocessing.layer(_preprocessing(weights, model))


def decode_predictions(
    preds: Any, top: int = 5, weights: Any = "cifar10", model: str | None = None
) -> list[list[tuple[str, float]]]:
    """Returns the `top` best (label, probability) pairs for each row of `preds`, best first.

    Args:
        preds: array or tensor of shape (batch, classes).
        top: how many pairs; all if there are fewer.
        weights: a tag that `list_weights` names, the name of a label set ("cifar10", "cifar100", "svhn", "imagenet",
            "imagenet_wordnet_ids"), a model that knows its labels, or a list with a label for each class.
        model: the name of the builder, where the weights of one tag differ.

    Raises:
        ValueError: an unknown tag, no labels, or predictions that do not have one column for each label.

    Example:

    >>> kp.decode_predictions(np.eye(10)[3:4], top=1, weights="cifar10")
    [[('cat', 1.0)]]
    """
    labels = getattr(weights, "labels", weights)
    if labels is None:
        raise ValueError("A network with a new head has no labels: give `weights` a list with one for each class.")
    if isinstance(weights, str):
        known = weights if weights in preprocessing.LABELS else index.describe(weights, model).labels
        labels = preprocessing.LABELS[known]
    return preprocessing.decode(preds, labels, top)


def load_image(file: Any, weights: Any = None, model: str | None = None) -> np.ndarray:
    """Returns the image in `file` as `weights` expect it: resized, cropped, uint8 of shape (height, width, 3).

    Args:
        file: path or binary file of any format Pillow reads.
        weights: a model of ours with weights, a `Preprocessing`, or a tag that `list_weights` names; default "cifar10".
        model: the name of the builder, where the weights of one tag differ.

    Raises:
        ValueError: an unknown tag, or a model that does not know its preprocessing.
        OSError: no such file, or not an image.

    Warns:
        UserWarning: `weights` were not given, and the image is not of CIFAR-10's size.

    Example:

    >>> kp.load_image("cat.png", kp.PreActResNet20(weights="cifar10")).shape
    (32, 32, 3)
    """
    known = _preprocessing(weights, model)
    image = preprocessing.read_image(file, len(known.mean))
    width, height = image.size
    if weights is None and (height, width) != known.size:
        _warn_of_default(f"This image, of {width}x{height} pixels, is resized")
    return preprocessing.fit(image, known)[0]


def _warn_of_default(done):
    """Warns whoever called the public function that it took the statistics of CIFAR-10."""
    rule = "since `weights` were not given: give the model, or its `preprocessing`."
    warnings.warn(f"{done} as CIFAR-10's of 32x32 pixels, {rule}", stacklevel=3)


def _has_size(shape, size):
    """Whether images of `shape`, with the channels first or last, have that size, (height, width)."""
    return size in (shape[-3:-1], shape[-2:])


def _preprocessing(weights, model):
    known = getattr(weights, "preprocessing", weights)  # of a model
    if isinstance(known, preprocessing.Preprocessing):
        return known
    if weights is not None and not isinstance(weights, str):
        raise ValueError(
            "`weights` must be a tag, a Preprocessing, or a model that knows its own, as those of our builders with "
            f"weights do; set model.preprocessing to what it was trained with. Received: {weights!r}"
        )
    return index.describe(weights or DEFAULT, model).preprocessing
