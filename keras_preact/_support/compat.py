"""Every private name of Keras that the package relies on, with why it must.

Tried with Keras 3.15. Where one of them moves, this is the room to mend.
"""
import keras


def functional(operation):
    """Returns the functional model that an operation is, or that a Sequential model has inside, or None."""
    found = getattr(operation, "_functional", None) or operation
    return found if hasattr(found, "_nodes_by_depth") else None


def nodes_by_depth(functional):
    """Returns {depth: nodes} of a functional model.

    `model.layers` tells neither which tensors a layer was called on here nor that it was called twice, and a layer's
    own `input` may be that of another model.
    """
    return functional._nodes_by_depth


def sublayers(layer, recursive=False):
    """Returns the layers that a layer or model holds, also as attributes; no public name tells those of a layer."""
    return layer._flatten_layers(include_self=False, recursive=recursive)


class BuiltOnZeros(keras.Model):
    """A network whose `fit` takes its shapes from zeros; `_symbolic_build` and `_maybe_symbolic_build` are Keras's.

    Keras would draw a batch to see them, under tf.distribute before each pass. What its threads had made ready by then
    they would serve once more in front of the pass, and as many batches at its end would be left for the next one.
    """

    def _symbolic_build(self, iterator=None, data_batch=None):
        shapes = (1, *self.input_shape[1:]), (1, *self.output_shape[1:])
        super()._symbolic_build(data_batch=tuple(keras.ops.zeros(shape) for shape in shapes))

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        with self.distribute_strategy.scope():
            self._symbolic_build()
