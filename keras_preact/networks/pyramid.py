"""Feature maps at every resolution of a network."""
import keras
from keras import layers

from keras_preact._support.settings import recursion_limit
from keras_preact.networks.graph import strides_of


def feature_pyramid(model):
    """Returns a network whose outputs are the last feature maps of each resolution, such as detectors take.

    A feature map is the sum at the end of the last residual unit of its resolution, after the batch normalization and
    ReLU that directly follow, so that the values are those that the next unit, or the head, was trained on.

    Args:
        model: a network of the zoo, also with another head.

    Returns:
        A `keras.Model` with the same input and layers. Its output is a dict: "stride4", "stride8", "stride16" and
        "stride32" of ImageNet networks, "stride1", "stride2" and "stride4" of CIFAR networks, each of shape
        (batch, height / stride, width / stride, channels), rounded up.

    Raises:
        ValueError: a model without residual units.

    Example:

    >>> pyramid = keras_preact.feature_pyramid(keras_preact.PreActResNet50(input_shape=(None, None, 3)))
    >>> pyramid(images)["stride8"]
    """
    strides = strides_of(model)
    found = {}
    for layer in model.layers:
        if isinstance(layer, layers.Add):
            found[f"stride{strides[layer.name]}"] = layer
    if not found:
        raise ValueError(f"`model` must have residual units, which end with an Add layer. Received: {model.name}")
    with recursion_limit(len(model.layers)):
        return keras.Model(model.input, {name: _activated(model, layer).output for name, layer in found.items()})


def _activated(model, layer):
    """Returns the last of the batch normalization and ReLU that directly follow `layer`, or `layer` itself."""
    for after in model.layers:
        if isinstance(after, (layers.BatchNormalization, layers.ReLU)) and after.input is layer.output:
            return _activated(model, after)
    return layer
