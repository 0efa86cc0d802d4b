"""Walks over the layers of a model, those of models inside it, too."""
from typing import NamedTuple

import keras
from keras import layers

from keras_preact._support import compat
from keras_preact._support.settings import recursion_limit

# Layers that pass their input on in inference; a random crop is resized then.
AUGMENTATION = tuple(
    kind for name, kind in vars(layers).items() if name.startswith("Rand") and name != "RandomCrop"
)
NEUTRAL = (
    layers.Dropout, layers.SpatialDropout2D, layers.GaussianDropout, layers.GaussianNoise, layers.Identity,
    *AUGMENTATION,
)


def layers_of(model):
    """Returns each layer of `model` once; in the place of a model or a wrapper, the layers inside it."""
    _check_model(model)
    found = {}
    for layer in compat.sublayers(model):
        inside = isinstance(layer, (keras.Model, layers.Wrapper))
        for one in layers_of(layer) if inside else [layer]:
            found[id(one)] = one
    return list(found.values())


def part_of(name):
    """Returns the part of a network, "stem", "stage1" ..., "predictions", that a layer or variable of that name is of.

    Another head is named as its layer up to the first underscore.
    """
    return name.split("/")[0].split("_")[0]


def parts_of(model):
    """Returns the parts of `model` that have weights, inputs first."""
    return list(dict.fromkeys(part_of(layer.name) for layer in layers_of(model) if layer.weights))


def normalizations_of(model):
    """Returns each batch normalization of `model` once, those inside models and layers of other layers, too."""
    _check_model(model)
    return [one for one in compat.sublayers(model, recursive=True) if isinstance(one, layers.BatchNormalization)]


def _check_model(model):
    if not isinstance(model, layers.Layer):
        raise ValueError(f"`model` must be a Keras model. Received: {type(model).__name__}")


def nodes_of(model):
    """Returns each use of a layer in `model`, inputs first: a node has `operation`, `input_tensors`, `output_tensors`.

    A layer's own `input` and `output` may be those of another model that uses it and, if it is a model, are inside it.

    Raises:
        ValueError: a model that has no graph of layers.
    """
    _check_model(model)
    functional = compat.functional(model)
    if functional is None:
        raise ValueError(
            f"{model.name} must be a functional model, or a Sequential one that starts with keras.Input: others have "
            "no graph of layers. Give the functional model inside it, or build it anew from keras.Input."
        )
    by_depth = compat.nodes_by_depth(functional)
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def entering(model):
    """Returns the layers of `model` between its input and the first layer with a kernel; none without a graph."""
    found = []
    for node in nodes_of(model) if compat.functional(model) else ():
        layer = node.operation
        if compat.functional(layer):
            return found + entering(layer)
        if hasattr(layer, "kernel"):
            break
        if not isinstance(layer, layers.InputLayer):
            found.append(layer)
    return found


def opened(model):
    """Returns a functional model of the same layers and variables as `model`, in which no model is a layer.

    A model stays closed that has no graph of layers, or layers named like others of the whole.

    Raises:
        ValueError: as `nodes_of`.
    """
    nodes, functional = nodes_of(model), compat.functional(model)
    if not any(compat.functional(node.operation) for node in nodes):
        return functional
    names = {node.operation.name: node.operation for node in nodes}
    outputs = _called(functional, {id(tensor): tensor for tensor in functional.inputs}, names)
    outputs = keras.tree.map_structure(lambda tensor: outputs[id(tensor)], functional.output)
    with recursion_limit(len(layers_of(model))):
        return keras.Model(functional.input, outputs, name=model.name)


def _called(model, tensors, names):
    """Calls the layers of `model`, and of models inside it, on `tensors`, {id of a tensor of `model`: its value}.

    Args:
        names: {name: operation} of those that are called; it grows.

    Returns:
        `tensors`, with those of all its layers.
    """
    for node in nodes_of(model):
        layer = node.operation
        if isinstance(layer, layers.InputLayer):
            continue
        arguments, given = node.arguments.fill_in(tensors)
        if compat.functional(layer) and _open(layer, names):
            inner = dict(zip(map(id, layer.inputs), keras.tree.flatten(arguments), strict=True))
            values = _called(layer, inner, names)
            found = [values[id(tensor)] for tensor in layer.outputs]
        else:
            found = layer(*arguments, **given)
        tensors |= dict(zip(map(id, node.output_tensors), keras.tree.flatten(found), strict=True))
    return tensors


def _open(model, names):
    """Adds the layers of `model` to `names` and returns True, unless another one has the name of one of them."""
    inside = [node.operation for node in nodes_of(model) if not isinstance(node.operation, layers.InputLayer)]
    free = all(names.get(layer.name, layer) is layer for layer in inside)
    if free:
        names |= {layer.name: layer for layer in inside}
    return free


def strides_of(model):
    """Returns, for each tensor of `model` by id, the pixels of the input for one of its own, along each side."""
    strides = {}
    for node in nodes_of(model):
        layer = node.operation
        before = max((strides[id(tensor)] for tensor in node.input_tensors), default=1)
        own = max(strides_of(layer).values()) if compat.functional(layer) else getattr(layer, "strides", (1,))[0]
        strides |= {id(tensor): before * own for tensor in node.output_tensors}
    return strides


class Head(NamedTuple):
    """How a network ends.

    Args:
        features: the tensor that the last dense layer takes; without one, what stands before the activation.
        dense: that layer, or None.
        activation: the activation at the end, as Keras names it, such as "softmax" or "linear"; None without any.
    """

    features: keras.KerasTensor
    dense: layers.Dense | None
    activation: str | None


def head_of(model):
    """Returns the `Head` of a model, as `opened` gives it; behind a dense layer may be dropout and activations."""
    producers, tensor, activation = producers_of(model), model.outputs[0], None
    while True:
        tensor = before_dropout(tensor, producers)
        layer = producers[id(tensor)].operation
        own = _activation_of(layer)
        if activation in (None, "linear"):
            activation = own or activation
        if own is None or isinstance(layer, layers.Dense):
            break
        (tensor,) = producers[id(tensor)].input_tensors
    if isinstance(layer, layers.Dense):
        return Head(producers[id(tensor)].input_tensors[0], layer, activation)
    return Head(tensor, None, activation)


def producers_of(model):
    """Returns {id of a tensor: the node that makes it}."""
    return {id(tensor): node for node in nodes_of(model) for tensor in node.output_tensors}


def before_dropout(tensor, producers):
    """Returns `tensor` as it is before layers that do nothing in inference."""
    while isinstance(producers[id(tensor)].operation, NEUTRAL):
        (tensor,) = producers[id(tensor)].input_tensors
    return tensor


def _activation_of(operation):
    """Returns the name of the activation that an operation applies, last of all; None if it applies none."""
    if isinstance(operation, (layers.Dense, layers.Activation)):
        return getattr(operation.activation, "__name__", type(operation.activation).__name__)
    if isinstance(operation, layers.Softmax):
        return "softmax"
    name = type(operation).__name__.lower()
    return name if not isinstance(operation, layers.Layer) and name in ("softmax", "sigmoid") else None


def deep_enough(config):
    """Raises Python's recursion limit as far as Keras needs it, which walks a path through the network recursively.

    With the shortcut first in every Add that path is the one along the shortcuts: one layer a unit in plain
    pre-activation networks, so that 1202 layers pass without this, but more where the join or a projection adds some or
    activations follow the addition, and all of a branch where its shortcut is scaled by 0.
    """
    return recursion_limit(20 * sum(config.units))  # no unit has more layers in a row
