"""The residual unit of "Identity Mappings in Deep Residual Networks" (He et al. 2016), in every form the paper tries.

`config` says what the forms are; here they become layers.
"""
import keras
from keras import layers

from keras_preact.networks.config import JOINS, Conv


def residual_unit(x, unit):
    """Returns the output of `unit` applied to the feature map `x`."""
    activated = unit.activated
    if not activated and (unit.shortcut == "project" or unit.channels != unit.filters):
        # A shortcut that changes the channels takes the pre-activation, too (appendix).
        x, activated = activate(x, unit.order.before, f"{unit.name}_bn1", f"{unit.name}_relu1", unit.epsilon), True
    branch = x
    for i, c in enumerate(unit.convs, start=1):
        last = i == len(unit.convs)
        names = f"{unit.name}_bn{i}", f"{unit.name}_relu{i}"
        if i > 1 or not activated:
            branch = activate(branch, unit.order.before, *names, unit.epsilon)
        branch = conv(branch, c, f"{unit.name}_conv{i}", unit.use_bias and last)
        branch = activate(branch, unit.order.tail if last else unit.order.between, *names, unit.epsilon)
    name, *values = unit.join
    shortcut = SHORTCUTS[unit.shortcut](x, unit)
    y = JOINERS[name](x, shortcut, branch, unit, *(values or JOINS[name].values()))
    return activate(y, unit.order.after, f"{unit.name}_out_bn", f"{unit.name}_out_relu", unit.epsilon)


# The parts every network is made of.

def channel_axis():
    return 1 if keras.config.image_data_format() == "channels_first" else -1


def conv(x, c, name, use_bias=False, bias_initializer="zeros"):
    """A conv padded by half its kernel on every side; He initialization over fan-out, as in the released Torch code."""
    padding = "same"
    if c.strides > 1:
        # At stride 2 "same" pads right and bottom only; Torch, and so every published weight, pads all sides.
        padding = "valid"
        if c.kernel > 1:
            x = layers.ZeroPadding2D(c.kernel // 2, name=f"{name}_pad")(x)
    return layers.Conv2D(
        c.filters, c.kernel, c.strides, padding, use_bias=use_bias, bias_initializer=bias_initializer, name=name,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
    )(x)


def activate(x, sequence, bn_name, relu_name, epsilon, scale=True):
    """Applies `sequence`, as in `Order`: "", "b", "r" or "br"."""
    for letter in sequence:
        if letter == "b":
            x = layers.BatchNormalization(channel_axis(), 0.9, epsilon, scale=scale, name=bn_name)(x)
        else:
            x = layers.ReLU(name=relu_name)(x)
    return x


# Shortcuts: h(x), in the shape of the branch.

def _identity(x, unit):
    return _subsample(x, unit)


def _pad(x, unit):
    """Option A of [1]: every second pixel, then zeros after the channels; no parameters."""
    x = _subsample(x, unit)
    extra = unit.filters - unit.channels
    # ZeroPadding2D pads two axes out of three; under the other data format's name one of them is the channel axis.
    last = channel_axis() == -1
    return layers.ZeroPadding2D(
        ((0, 0), (0, extra)) if last else ((0, extra), (0, 0)),
        data_format="channels_first" if last else "channels_last",
        name=f"{unit.name}_shortcut_pad",
    )(x)


def _project(x, unit):
    """Options B and C of [1], and Fig. 2(e): a 1x1 conv, and the batch normalization that follows convs in `order`."""
    x = conv(x, Conv(unit.filters, 1, unit.strides), f"{unit.name}_shortcut_conv", unit.use_bias)
    return activate(x, unit.order.tail.replace("r", ""), f"{unit.name}_shortcut_bn", None, unit.epsilon)


def _subsample(x, unit):
    return layers.MaxPooling2D(1, unit.strides, name=f"{unit.name}_shortcut_pool")(x) if unit.strides > 1 else x


SHORTCUTS = {"identity": _identity, "pad": _pad, "project": _project}


# Joins: h(x) and F(x) to y. The shortcut comes first in every Add: Keras walks a graph recursively, input by input, and
# down the branches a network of more than about 300 layers meets Python's recursion limit.

def _add(shortcut, branch, unit):
    return layers.Add(name=f"{unit.name}_add")([shortcut, branch])


def _plain(x, shortcut, branch, unit):
    """Fig. 2(a)."""
    return _add(shortcut, branch, unit)


def _scaled(x, shortcut, branch, unit, shortcut_scale, branch_scale):
    """Fig. 2(b), constant scaling. A shortcut scaled by 0 is left out: a plain network."""
    if branch_scale != 1:
        branch = layers.Rescaling(branch_scale, name=f"{unit.name}_scale")(branch)
    if shortcut_scale == 0:
        return branch
    if shortcut_scale != 1:
        shortcut = layers.Rescaling(shortcut_scale, name=f"{unit.name}_shortcut_scale")(shortcut)
    return _add(shortcut, branch, unit)


def _gate(x, unit, bias):
    """g(x) = sigmoid(W x + b) and 1 - g(x); a 1x1 conv, of the unit's stride so that it fits the sum."""
    g = conv(x, Conv(unit.filters, 1, unit.strides), f"{unit.name}_gate_conv", True, keras.initializers.Constant(bias))
    g = layers.Activation("sigmoid", name=f"{unit.name}_gate")(g)
    return g, layers.Rescaling(-1.0, 1.0, name=f"{unit.name}_shortcut_gate")(g)


def _shortcut_gate(x, shortcut, branch, unit, bias):
    """Fig. 2(d), shortcut-only gating."""
    _, rest = _gate(x, unit, bias)
    return _add(layers.Multiply(name=f"{unit.name}_shortcut_gated")([shortcut, rest]), branch, unit)


def _exclusive_gate(x, shortcut, branch, unit, bias):
    """Fig. 2(c), exclusive gating."""
    g, rest = _gate(x, unit, bias)
    shortcut = layers.Multiply(name=f"{unit.name}_shortcut_gated")([shortcut, rest])
    return _add(shortcut, layers.Multiply(name=f"{unit.name}_gated")([branch, g]), unit)


def _dropout(x, shortcut, branch, unit, rate):
    """Fig. 2(f), dropout on the shortcut; what is kept is scaled up by 1 / (1 - rate), in Keras as in Caffe."""
    return _add(layers.Dropout(rate, name=f"{unit.name}_shortcut_dropout")(shortcut), branch, unit)


JOINERS = {
    "plain": _plain,
    "scaled": _scaled,
    "exclusive_gate": _exclusive_gate,
    "shortcut_gate": _shortcut_gate,
    "dropout": _dropout,
}
