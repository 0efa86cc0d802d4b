"""What makes a step of the gradients, by the name that a recipe gives it."""
import keras
from keras import ops

from keras_preact.networks.graph import part_of


class ByVariable:
    """Of a Keras optimizer: decay that leaves variables out, and learning rates of their own for parts of a network.

    Args:
        l2: the factor of decay.
        decay: what it acts on, "all" variables or the "kernels" of convs and dense layers alone.
        parts: {part of a network, as `graph.part_of` names it: times which the learning rate is its own}; 1 for others.
        alone: (a part, the number of steps at first in which nothing else is trained).
        **kwargs: as of the optimizer.
    """

    def __init__(self, *args, l2=0.0, decay="all", parts=None, alone=(None, 0), **kwargs):
        super().__init__(*args, **kwargs)
        self.l2, self.decay, self.parts, self.alone = l2, decay, dict(parts or {}), tuple(alone)

    def build(self, variables):
        # TensorFlow hands its own variables to update_step, whose names are not Keras's.
        self._decayed = {i for i, v in enumerate(variables) if self.decay == "all" or v.name == "kernel"}
        self._parts = [part_of(v.path) for v in variables]
        super().build(variables)

    def apply(self, grads, trainable_variables=None):
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # All gradients before any update: Grappler's dependency optimization may let one that is computed late see
            # a variable that was updated early (TensorFlow 2.21), another one in each run.
            grads = tf.tuple(grads)
            replica = tf.distribute.get_replica_context()
            if self.global_clipnorm and replica and replica.num_replicas_in_sync > 1:
                # Keras would clip what each replica adds; of what it adds now its clipping takes nothing.
                grads, _ = tf.clip_by_global_norm(replica.all_reduce("SUM", grads), self.global_clipnorm)
                grads = [grad / replica.num_replicas_in_sync for grad in grads]
        super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        part, (alone, steps) = self._parts[index], self.alone
        if part in self.parts:
            learning_rate = learning_rate * self.parts[part]
        if steps and part != alone:
            learning_rate = ops.where(self.iterations < steps, 0.0, learning_rate)
        self.step(index, gradient, variable, learning_rate)

    def get_config(self):
        own = {"l2": self.l2, "decay": self.decay, "parts": self.parts, "alone": self.alone}
        return super().get_config() | own


class SGD(ByVariable, keras.optimizers.SGD):
    """Keras's SGD with the L2 gradient of the paper, g + d * w; Keras's own `weight_decay` is decoupled from momentum.

    Args:
        **kwargs: as of `ByVariable`, whose `l2` is the factor d, and of `keras.optimizers.SGD`.
    """

    def step(self, index, gradient, variable, learning_rate):
        if self.l2 and index in self._decayed:
            gradient = ops.add(gradient, ops.multiply(ops.cast(variable, gradient.dtype), self.l2))
        super(ByVariable, self).update_step(gradient, variable, learning_rate)


class Decoupled(ByVariable):
    """Decay beside the step (Loshchilov and Hutter 2019): it takes `l2` times the learning rate of a variable."""

    def step(self, index, gradient, variable, learning_rate):
        if self.l2 and index in self._decayed:
            self.assign_sub(variable, ops.cast(learning_rate * self.l2, variable.dtype) * variable)
        super(ByVariable, self).update_step(gradient, variable, learning_rate)


class AdamW(Decoupled, keras.optimizers.Adam):
    """Adam with decoupled decay."""


class Lamb(Decoupled, keras.optimizers.Lamb):
    """LAMB (You et al. 2020), for large batches, as Keras has it: the decay is not part of the trust ratio."""


class Muon(SGD):
    """Muon (Jordan et al. 2024) for the kernels of convs, and SGD at a higher rate for all else.

    A step of a kernel, as a matrix of shape (height * width * inputs, outputs), is its momentum with all singular
    values brought near 1, times 0.2 sqrt(the larger side): as large as a step of Adam (Liu et al. 2025). Decay of
    kernels is decoupled: each step takes `l2` times the learning rate of them; nothing else decays.
    `keras.optimizers.Muon` leaves convs to Adam.

    Args:
        learning_rate: of the kernels; 0.02 is usual.
        others: times which it is that of other variables.
        **kwargs: as of `SGD`.
    """

    def __init__(self, *args, others=10.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.others = others

    def build(self, variables):
        # Rank 5 where units are one loop over stacked kernels.
        self._kernels = {i for i, v in enumerate(variables) if v.name == "kernel" and len(v.shape) >= 4}
        super().build(variables)
        self._decayed = set()

    def step(self, index, gradient, variable, learning_rate):
        if index not in self._kernels:
            return super().step(index, gradient, variable, learning_rate * self.others)
        rate, gradient = (ops.cast(value, variable.dtype) for value in (learning_rate, gradient))
        momentum = self.momentums[index]
        self.assign(momentum, self.momentum * momentum + gradient)
        direction = self.momentum * momentum + gradient if self.nesterov else momentum
        shape = variable.shape
        step = orthogonalized(ops.reshape(direction, (*shape[:-4], -1, shape[-1])))
        size = 0.2 * max(step.shape[-2:]) ** 0.5
        self.assign_sub(variable, rate * (size * ops.reshape(step, shape) + self.l2 * variable))

    def get_config(self):
        return super().get_config() | {"others": self.others}


def orthogonalized(matrix):
    """Returns `matrix`, of rank 2 or more, with its singular values brought near 1, those of next to nothing apart.

    By five steps of a Newton-Schulz iteration whose coefficients are Jordan's, on the narrow side.
    """
    rows, columns = matrix.shape[-2:]
    x = ops.swapaxes(matrix, -1, -2) if rows > columns else matrix
    x = x / (ops.norm(x, axis=(-2, -1), keepdims=True) + 1e-7)
    for _ in range(5):
        square = x @ ops.swapaxes(x, -1, -2)
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return ops.swapaxes(x, -1, -2) if rows > columns else x


def _sgd(kind):
    return lambda rates, recipe, **options: kind(rates, recipe.momentum, recipe.nesterov, **options)


def _adaptive(kind):
    return lambda rates, recipe, **options: kind(rates, **options)


OPTIMIZERS = {"sgd": _sgd(SGD), "muon": _sgd(Muon), "adamw": _adaptive(AdamW), "lamb": _adaptive(Lamb)}


def optimizer_of(recipe, rates, parts=(), steps_per_epoch=0):
    """Returns the optimizer of a recipe.

    Args:
        recipe: a `Recipe`.
        rates: the learning rate of each step, a Keras schedule.
        parts: of the network, inputs first; the last one is trained alone in the first `recipe.head_epochs`.
        steps_per_epoch: of the run.
    """
    above = enumerate(reversed(parts))  # the number of parts behind each
    at_first = recipe.head_epochs * steps_per_epoch // recipe.accumulate
    return OPTIMIZERS[recipe.optimizer](
        rates, recipe, l2=recipe.weight_decay, decay=recipe.decay, global_clipnorm=recipe.clip,
        use_ema=recipe.ema > 0, ema_momentum=recipe.ema,
        gradient_accumulation_steps=recipe.accumulate if recipe.accumulate > 1 else None,
        parts={part: recipe.layer_decay**i for i, part in above} if recipe.layer_decay < 1 else None,
        alone=(parts[-1], at_first) if at_first else (None, 0),
    )
