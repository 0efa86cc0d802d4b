"""Images in and labels out, as a weight that is named by its tag wants them."""
from keras_preact.data import preprocessing
from keras_preact.zoo import index


def preprocess_input(x, weights="cifar10", model=None, data_format=None):
    """Normalizes images as `weights` were trained: (x / 255 - mean) / std. The argument itself stays as it is.

    Args:
        x: array or tensor of pixel values from 0 to 255, uint8 or float, of shape (..., height, width, 3), or
            (..., 3, height, width) if the data format is "channels_first".
        weights: a tag that `list_weights` names, or a `Preprocessing`, such as `model.preprocessing`.
        model: the name of the builder, where the weights of one tag differ.
        data_format: default Keras's `image_data_format`.

    Returns:
        float32 of the shape of `x`.

    Raises:
        ValueError: an unknown tag, or another number of channels.
    """
    return preprocessing.normalize(x, _preprocessing(weights, model), data_format)


def decode_predictions(preds, top=5, weights="cifar10", model=None):
    """Returns the `top` best (label, probability) pairs for each row of `preds`, best first.

    Args:
        preds: array or tensor of shape (batch, classes).
        top: how many pairs; all if there are fewer.
        weights: a tag that `list_weights` names, the name of a label set ("cifar10", "cifar100", "svhn",
            "imagenet", "imagenet_wordnet_ids"), or a list with a label for each class, such as `model.labels`.
        model: the name of the builder, where the weights of one tag differ.

    Raises:
        ValueError: an unknown tag, no labels, or predictions that do not have one column for each label.
    """
    labels = weights
    if labels is None:
        raise ValueError("A network with a new head has no labels: give `weights` a list with one for each class.")
    if isinstance(weights, str):
        known = weights if weights in preprocessing.LABELS else index.describe(weights, model).labels
        labels = preprocessing.LABELS[known]
    return preprocessing.decode(preds, labels, top)


def load_image(file, weights="cifar10", model=None):
    """Returns the image in `file` as `weights` expect it: resized, cropped, uint8 of shape (height, width, 3).

    Args:
        file: path or binary file of any format Pillow reads.
        weights: a tag that `list_weights` names, or a `Preprocessing`, such as `model.preprocessing`.
        model: the name of the builder, where the weights of one tag differ.

    Raises:
        ValueError: an unknown tag.
        OSError: no such file, or not an image.
    """
    return preprocessing.load_image(file, _preprocessing(weights, model))


def _preprocessing(weights, model):
    if isinstance(weights, preprocessing.Preprocessing):
        return weights
    return index.describe(weights, model).preprocessing
