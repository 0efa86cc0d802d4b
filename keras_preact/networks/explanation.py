"""Where a network looks: Grad-CAM."""
from typing import Any

import keras
import numpy as np

from keras_preact._support.settings import recursion_limit
from keras_preact.networks.graph import before_dropout, head_of, opened, producers_of

LAST = "channels_last"
SIDE = 224  # pixels of an overlay, at least
COLOURS = np.array([[0, 0, 128], [0, 0, 255], [0, 255, 255], [255, 255, 0], [255, 0, 0]])  # from little to much


def grad_cam(model: keras.Model, x: Any, classes: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns where in each image the evidence for a class is: Grad-CAM on the last feature map.

    The weight of a channel is the mean gradient of the class's logit, which after global average pooling and a dense
    layer is its weight in that layer; so there is nothing to differentiate, on any backend.

    Args:
        model: a network of the zoo with its top, also inside a Sequential or another functional model; dropout may
            stand before the dense layer, and an activation behind it.
        x: normalized images, as `model` takes them.
        classes: the index of a class for each image; default the most probable one.

    Returns:
        (float array of shape (batch, height, width) of the last feature map, from 0 to 1; the classes).

    Raises:
        ValueError: a model that does not end with global average pooling and a dense layer, images that it does not
            take, or classes it has not.

    Example:

    >>> model = kp.PreActResNet20(weights="cifar10")
    >>> heat, classes = kp.grad_cam(model, kp.preprocess_input(images, model))
    >>> heat.shape == (len(images), 8, 8)
    True

    Reference: Selvaraju et al., "Grad-CAM", ICCV 2017, Sec. 3.1.
    """
    network = opened(model)
    head, producers = head_of(network), producers_of(network)
    pool = producers[id(before_dropout(head.features, producers))]
    if not isinstance(pool.operation, keras.layers.GlobalAveragePooling2D) or head.dense is None:
        raise ValueError(
            "`model` must end with global average pooling and a dense layer, as networks of the zoo do with their top; "
            "dropout may stand between them. Build its head of these alone. "
            f"Received: {model.name}, which ends with {pool.operation.name} and {model.layers[-1].name}"
        )
    wanted, shape = network.input_shape[1:], tuple(getattr(x, "shape", ()))
    if len(shape) != 4 or not shape[0] or any(side not in (None, given) for side, given in zip(wanted, shape[1:])):
        raise ValueError(
            f"`x` must be images of shape (images, {', '.join(map(str, wanted))}), one at least; x[None] makes a batch "
            f"of one image. Received: {shape or type(x).__name__}"
        )
    with recursion_limit(len(network.layers)):
        both = keras.Model(network.inputs[0], [pool.input_tensors[0], network.outputs[0]])
    maps, scores = (keras.ops.convert_to_numpy(value) for value in both(x, training=False))
    if pool.operation.data_format != LAST:
        maps = np.moveaxis(maps, 1, -1)
    classes = scores.argmax(1) if classes is None else np.asarray(classes)
    known = classes.shape == (len(maps),) and classes.dtype.kind in "iu"
    if not known or not ((0 <= classes) & (classes < scores.shape[1])).all():
        raise ValueError(
            f"`classes` must have an index below {scores.shape[1]} for each of the {len(maps)} images. "
            f"Received: {classes.tolist()}"
        )
    kernel = keras.ops.convert_to_numpy(head.dense.kernel)
    heat = np.maximum(np.einsum("nhwc,cn->nhw", maps.astype("float32"), kernel[:, classes]), 0)
    return heat / np.maximum(heat.max((1, 2), keepdims=True), 1e-12), classes


def overlay(image, heat):
    """Returns the Pillow image of `image`, uint8 (height, width, channels), with `heat`, 0 to 1, over it in colours."""
    from PIL import Image

    factor = max(1, round(SIDE / min(image.shape[:2])))
    size = image.shape[1] * factor, image.shape[0] * factor
    photo = Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)))
    photo = np.asarray(photo.resize(size, Image.Resampling.NEAREST))
    heat = np.asarray(Image.fromarray(heat.astype("float32")).resize(size, Image.Resampling.BILINEAR))
    stops = np.linspace(0, 1, len(COLOURS))
    colours = np.stack([np.interp(heat, stops, channel) for channel in COLOURS.T], -1)
    return Image.fromarray(np.uint8(0.55 * photo + 0.45 * colours))
