"""Feature maps at every resolution of a network."""
import keras
from keras import layers

from keras_preact._support import compat
from keras_preact._support.settings import recursion_limit
from keras_preact.networks.graph import nodes_of, opened, strides_of


def feature_pyramid(model: keras.Model) -> keras.Model:
    """Returns a network whose outputs are the last feature maps of each resolution, such as detectors take.

    A feature map is the sum at the end of the last residual unit of its resolution, after the batch normalization and
    ReLU that directly follow, so that the values are those that the next unit, or the head, was trained on.

    Args:
        model: a network of the zoo, also with another head, or inside a Sequential or another functional model.

    Returns:
        A `keras.Model` with the same input and layers. Its output is a dict: "stride4", "stride8", "stride16" and
        "stride32" of ImageNet networks, "stride1", "stride2" and "stride4" of CIFAR networks, each of shape
        (batch, height / stride, width / stride, channels), rounded up.

    Raises:
        ValueError: a model without residual units, or with several networks whose maps would be of the same names.

    Example:

    >>> pyramid = kp.feature_pyramid(kp.PreActResNet18(input_shape=(None, None, 3)))
    >>> pyramid(images.astype("float32"))["stride8"].shape[1:] == (4, 4, 128)
    True
    """
    network = opened(model)
    nodes, strides, found = nodes_of(network), strides_of(network), {}
    _check_single(model, nodes)
    for node in nodes:
        if isinstance(node.operation, layers.Add):
            (output,) = node.output_tensors
            found[f"stride{strides[id(output)]}"] = output
    if not found:
        raise ValueError(f"`model` must have residual units, which end with an Add layer. Received: {model.name}")
    with recursion_limit(len(nodes)):
        return keras.Model(network.input, {name: _activated(nodes, output) for name, output in found.items()})


def _activated(nodes, tensor):
    """Returns the last of the batch normalization and ReLU that directly follow `tensor`, or that itself."""
    for node in nodes:
        if isinstance(node.operation, (layers.BatchNormalization, layers.ReLU)) and node.input_tensors[0] is tensor:
            return _activated(nodes, node.output_tensors[0])
    return tensor


def _check_single(model, nodes):
    """Raises ValueError where `nodes` are of a network that is used twice, or of several."""
    names = [node.operation.name for node in nodes if isinstance(node.operation, layers.Add)]
    closed = [node.operation.name for node in nodes if compat.functional(node.operation)]
    if closed or len(set(names)) < len(names):
        raise ValueError(
            "`model` must have one network that is used once, so that each resolution has one last feature map. "
            f"Received: {model.name}, with several: give one of them, model.get_layer(name)."
        )
