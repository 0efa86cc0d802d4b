"""Networks that train with stochastic depth (Huang et al. 2016): in each step units are left out at random."""
import keras


def survival(units, last):
    """Returns the probability with which each of so many units stays, falling to `last`: 1 - l/L (1 - last)."""
    return [1 - unit / units * (1 - last) for unit in range(1, units + 1)]


class Stochastic(keras.Model):
    """The form of a network of the zoo that leaves out units at random while it trains. On TensorFlow alone.

    In a training step unit l of L computes h(x) + b / p F(x), where b is 1 with the probability p = `survival`[l] and
    otherwise 0; where it is 0, F is not computed and its statistics stay. That is h(x) + F(x) on average, so that the
    network is measured and saved as a plain one; Huang et al. train with b F(x) and measure with p F(x). What is left
    out follows from the seed and the number of steps that the optimizer has made.

    Args:
        *args: as of `keras.Model`.
        last: the probability with which the last unit stays.
        seed: an integer.
        **kwargs: as of `keras.Model`.

    Raises:
        ValueError: another backend.

    Reference: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
    """

    def __init__(self, *args, last=1.0, seed=0, **kwargs):
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "Stochastic depth wants KERAS_BACKEND=tensorflow, or a recipe with survival=1. "
                f"Received: the backend {keras.backend.backend()!r}"
            )
        super().__init__(*args, **kwargs)
        self.last, self.seed = last, seed
        self.autocast = False  # the layers cast what they are handed, which are the values of the variables

    def call(self, inputs, training=None, mask=None):
        if not training:
            return super().call(inputs, training=training, mask=mask)
        adds = [layer for layer in self.layers if layer.name.endswith("_add")]
        chances = survival(len(adds), self.last)
        x, end = inputs, self.inputs[0]
        for add, chance, draw in zip(adds, chances, self._draws(len(adds)), strict=True):
            shortcut, branch = add.input
            start = self._start(shortcut, add.name.removesuffix("add") + "shortcut_")
            x = _run(end, start, x)
            stays = draw < chance
            x = _run(start, shortcut, x) + _branch(keras.Model(start, branch), x, stays, chance)
            end = add.output
        return _run(end, self.outputs[0], x)

    def _start(self, shortcut, prefix):
        """Returns what both paths of a unit take; the layers of its shortcut, if any, are named by `prefix`."""
        return next((layer.input for layer in self.layers if layer.name.startswith(prefix)), shortcut)

    def _draws(self, count):
        import tensorflow as tf

        step = tf.cast(keras.ops.convert_to_tensor(self.optimizer.iterations), "int32")
        return tf.unstack(tf.random.stateless_uniform([count], tf.stack([self.seed % 2**31, step])))


def _run(start, end, x):
    """Returns the value at `end` of the network's graph where that at `start` is `x`."""
    return x if start is end else keras.Model(start, end)(x, training=True)


def _branch(branch, x, stays, chance):
    """Returns F(x) / chance or, without computing it, zeros."""
    values, state = (
        [keras.ops.convert_to_tensor(variable) for variable in variables]
        for variables in (branch.trainable_variables, branch.non_trainable_variables)
    )

    def compute():
        y, new = branch.stateless_call(values, state, x, training=True)
        return y / chance, new

    def leave_out():
        shape = keras.ops.shape(x)[:1] + branch.output_shape[1:]
        return keras.ops.zeros(shape, branch.compute_dtype), state

    y, new = keras.ops.cond(stays, compute, leave_out)
    for variable, value in zip(branch.non_trainable_variables, new):
        variable.assign(value)
    return y
