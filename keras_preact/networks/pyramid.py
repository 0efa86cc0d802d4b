"""Feature maps at every resolution of a network."""
import keras
from keras import layers

from keras_preact.networks.building import nodes_of, recursion_limit


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


def strides_of(model):
    """Returns, for each layer by name, the pixels of the input for one of its output, along each side."""
    strides, found = {}, {}
    for node in nodes_of(model):
        layer = node.operation
        before = max((strides[id(tensor)] for tensor in node.input_tensors), default=1)
        own = max(strides_of(layer).values()) if isinstance(layer, keras.Model) else getattr(layer, "strides", (1,))[0]
        found[layer.name] = before * own
        strides |= {id(tensor): before * own for tensor in node.output_tensors}
    return found


def _activated(model, layer):
    """Returns the last of the batch normalization and ReLU that directly follow `layer`, or `layer` itself."""
    for after in model.layers:
        if isinstance(after, (layers.BatchNormalization, layers.ReLU)) and after.input is layer.output:
            return _activated(model, after)
    return layer
