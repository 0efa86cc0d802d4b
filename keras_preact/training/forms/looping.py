"""A form of any network for training, in which units that are alike run as one loop over stacked weights."""
import itertools

import keras
import numpy as np

from keras_preact.networks.building import features, head
from keras_preact.networks.units import residual_unit
from keras_preact.training import forms
from keras_preact.training.forms.fused_batch_norm import fuse_batch_norm
from keras_preact.training.forms.rematerialization import block_size


def looped(network, config, rematerialize=False, batch_norm_group=None, base=keras.Model):
    """Returns the looped form of a network of `ResNet`: the same function, starting from its weights.

    Consecutive units whose layers have the same shapes are one `Loop`, so that a network of a thousand layers is
    traced and compiled as one of twenty, and its optimizer has some dozens of variables to update instead of
    thousands. Files are those of the plain network: `save_weights` and `load_weights` write and read its weights and
    the state of its optimizer.

    Args:
        network: a functional model with a top and without activation; both forms are to be compiled, each with an SGD
            of its own.
        config: the `NetworkConfig` it was built from.
        rematerialize: whether units run in blocks of about the square root of their number, of which only what enters
            is kept; the rest is computed again when the gradients reach it (Chen et al. 2016, "Training Deep Nets with
            Sublinear Memory Cost").
        batch_norm_group: `group` of `fuse_batch_norm`, for what is in the loops; they are fused.
        base: the class of models to derive from.

    Returns:
        A `Looped` of the class `base`, too.
    """

    def stage(x, units):
        for _, alike in itertools.groupby(units, lambda unit: unit._replace(name="")):
            first, *others = alike
            if others:
                x = Loop((first, *others), rematerialize, batch_norm_group, name=first.name)(x)
            else:
                x = residual_unit(x, first)
        return x

    inputs = keras.Input(network.input_shape[1:])
    outputs = head(features(inputs, config, stage), network.output_shape[-1], None)
    return forms.on(Looped, base)(inputs, outputs, plain=network, name=network.name).roll()


class Looped(keras.Model):
    """The looped form of the network `plain`; other arguments are those of `keras.Model`."""

    def __init__(self, *args, plain=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.plain = lambda: plain  # as an attribute it would count as a layer of this one

    def unrolled(self):
        """Returns the plain network with the values of now."""
        network = self.plain()
        for variable, parts in _pairs(self, network):
            values = keras.ops.convert_to_numpy(variable)
            for part, value in zip(parts, values if len(parts) > 1 else [values]):
                part.assign(value)
        return network

    def roll(self):
        """Takes the values of the plain network."""
        for variable, parts in _pairs(self, self.plain()):
            values = [keras.ops.convert_to_numpy(part) for part in parts]
            variable.assign(np.stack(values) if len(parts) > 1 else values[0])
        return self

    def save_weights(self, *args, **kwargs):
        self.unrolled().save_weights(*args, **kwargs)

    def load_weights(self, *args, **kwargs):
        self.unrolled().load_weights(*args, **kwargs)
        self.roll()


def unrolled(network):
    """Returns the plain form of a network that may be looped, with the values of now."""
    return network.unrolled() if isinstance(network, Looped) else network


def _pairs(model, network):
    """Yields (variable of the looped `model`, those of the plain `network` that it holds), optimizers' included."""
    plain, parts = {layer.name: layer.variables for layer in network.layers}, {}
    for layer in model.layers:
        if isinstance(layer, Loop):
            for variable, (suffix, i) in zip(layer.variables, layer.slots):
                parts[id(variable)] = [plain[unit.name + suffix][i] for unit in layer.units]
        elif layer.name in plain:
            parts |= {id(variable): [part] for variable, part in zip(layer.variables, plain[layer.name])}
    for variable in model.variables:
        yield variable, parts[id(variable)]
    if not model.compiled:
        return
    if not network.optimizer.built:
        network.optimizer.build(network.trainable_variables)
    own, others = _momentums(model), _momentums(network)
    others = dict(zip(map(id, network.trainable_variables), others))
    for variable, momentum in zip(model.trainable_variables, own):
        yield momentum, [others[id(part)] for part in parts[id(variable)]]
    scalars = len(model.optimizer.variables) - len(own)
    for variable, part in zip(model.optimizer.variables[:scalars], network.optimizer.variables):
        yield variable, [part]


def _momentums(model):
    return getattr(model.optimizer, "inner_optimizer", model.optimizer).momentums  # under that of mixed_float16


class Loop(keras.layers.Layer):
    """Residual units that are alike, one after the other; each of its variables stacks theirs.

    Args:
        units: two or more `Unit`s that differ in their names only.
        rematerialize, batch_norm_group: as of `looped`.
        name: of the layer.
    """

    def __init__(self, units, rematerialize=False, batch_norm_group=None, name=None):
        super().__init__(autocast=False, name=name)
        self.units, self.rematerialize, self.batch_norm_group = units, rematerialize, batch_norm_group

    def build(self, shape):
        x = keras.Input(shape[1:])
        first, *_ = self.units
        unit = keras.Model(x, residual_unit(x, first))
        fuse_batch_norm(unit, self.batch_norm_group)
        place = {
            id(variable): (layer.name.removeprefix(first.name), i)
            for layer in unit.layers for i, variable in enumerate(layer.variables)
        }
        variables = unit.trainable_variables + unit.non_trainable_variables
        self.slots = tuple(place[id(variable)] for variable in variables)
        # Bound methods, because a model as an attribute would count as a layer of this one.
        self.call_unit = unit.stateless_call
        for variable in variables:
            # The layers of the unit cast the values themselves.
            self.add_weight(
                shape=(len(self.units), *variable.shape), initializer="zeros", dtype=variable.dtype,
                trainable=variable.trainable, autocast=False, name=variable.name,
            )

    def call(self, x, training=None):
        def unit(x, weights, state):
            y, state = self.call_unit(weights, state, x, training=training)
            return y, state if training else []

        run = _in_blocks if self.rematerialize and training else SCANS[keras.backend.backend()]
        weights, state = ([v.value for v in vs] for vs in (self.trainable_variables, self.non_trainable_variables))
        x, state = run(unit, x, weights, state)
        for variable, value in zip(self.non_trainable_variables, state):
            variable.assign(value)
        return x

    def compute_output_shape(self, shape):
        return shape


def _scan(f, x, weights, state):
    """Returns (x, stacked states) after x, state = f(x, weights, state) for each row of what is stacked."""
    return keras.ops.scan(lambda x, row: f(x, *row), x, (weights, state))


def _calls(f, x, weights, state):
    """`_scan` for TensorFlow: calls of a function that is traced and optimized once."""
    import tensorflow as tf

    f = tf.function(f, experimental_attributes={"_noinline": True})
    states = []
    for row in zip(*(zip(*map(tf.unstack, values)) for values in (weights, state))):
        x, new = f(x, *row)
        states.append(new)
    return x, [tf.stack(values) for values in zip(*states)]


SCANS = {"jax": _scan, "tensorflow": _calls}


def _in_blocks(unit, x, weights, state):
    """`_scan` by blocks of rows, of which only `x` is kept for the gradients."""
    ops, scan = keras.ops, SCANS[keras.backend.backend()]
    count = weights[0].shape[0]
    size = block_size(count)
    whole = count - count % size

    def block(x, weights, state):
        # The state has no gradient, and what is no argument needs none.
        return keras.remat(lambda x, *weights: scan(unit, x, weights, state))(x, *weights)

    rows = ([ops.reshape(v[:whole], (-1, size, *v.shape[1:])) for v in values] for values in (weights, state))
    x, new = scan(block, x, *rows)
    new = [ops.reshape(value, (whole, *value.shape[2:])) for value in new]
    if whole < count:
        x, rest = block(x, *([v[whole:] for v in values] for values in (weights, state)))
        new = [ops.concatenate(pair) for pair in zip(new, rest)]
    return x, new
