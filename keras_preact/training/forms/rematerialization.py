"""Networks whose training keeps few activations and computes the others once more for the gradients."""
import math

import keras


class Rematerialized(keras.Model):
    """The form of a network of the zoo that runs its residual units in blocks of about the square root of their number.

    Of a block what enters it is kept; the rest is computed again when the gradients reach it (Chen et al. 2016,
    "Training Deep Nets with Sublinear Memory Cost"), so that activations take memory as the square root of the depth,
    for about a third more computation.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.autocast = False  # the layers cast what they are handed, which are the values of the variables

    def call(self, inputs, training=None, mask=None):
        if not training:
            return super().call(inputs, training=training, mask=mask)
        x = inputs
        for block in self._blocks():
            x = _rematerialize(block, x)
        return x

    def _blocks(self):
        # Built where it is traced: as an attribute its models would count as layers of this one.
        ends = [layer.output for layer in self.layers if layer.name.endswith("_add")]
        size = block_size(len(ends))
        borders = [self.inputs[0], *ends[size - 1:-1:size], self.outputs[0]]
        return [keras.Model(start, end) for start, end in zip(borders, borders[1:])]


def block_size(units):
    """Returns how many of so many units are one block."""
    return max(1, round(math.sqrt(units / 4)))


def _rematerialize(block, x):
    # Copies, because TensorFlow would read a variable anew when the function is called again.
    values, state = (
        [keras.ops.copy(variable) for variable in variables]
        for variables in (block.trainable_variables, block.non_trainable_variables)
    )

    def pure(x, *values):
        return block.stateless_call(values, state, x, training=True)

    y, updated = keras.remat(pure)(x, *values)
    for variable, value in zip(block.non_trainable_variables, updated):
        variable.assign(value)
    return y
