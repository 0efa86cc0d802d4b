"""Walks over the graph of layers of a model."""
import keras

from keras_preact._support import compat
from keras_preact._support.settings import recursion_limit


def nodes_of(model):
    """Returns each use of a layer in `model`, inputs first: a node has `operation`, `input_tensors`, `output_tensors`.

    A layer's own `input` and `output` may be those of another model that uses it and, if it is a model, are inside it.
    """
    by_depth = compat.nodes_by_depth(model)
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


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


def deep_enough(config):
    """Raises Python's recursion limit as far as Keras needs it, which walks a path through the network recursively.

    With the shortcut first in every Add that path is the one along the shortcuts: one layer a unit in plain
    pre-activation networks, so that 1202 layers pass without this, but more where the join or a projection adds some or
    activations follow the addition, and all of a branch where its shortcut is scaled by 0.
    """
    return recursion_limit(20 * sum(config.units))  # no unit has more layers in a row
