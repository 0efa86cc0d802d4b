"""What a network costs, counted from its plan without building it."""
from math import ceil
from typing import NamedTuple

from keras_preact.networks.config import ORDERS, Conv, plan


class Cost(NamedTuple):
    """Trainable parameters, batch-norm statistics (moving means and variances), and multiply-adds for one image.

    As in the literature, multiply-adds are those of the convs and the dense layer.
    """

    parameters: int = 0
    statistics: int = 0
    multiply_adds: int = 0

    def __add__(self, other):
        return Cost(*map(sum, zip(self, other)))


class Stage(NamedTuple):
    """A row of the stage table, as Table 1 of [1]: what it is made of, its output size (height, width) and its cost."""

    name: str
    layers: str
    size: tuple
    cost: Cost


def count(config, size=None, classes=None, channels=3):
    """Returns the `Cost` of the whole network; arguments as for `stages`."""
    return sum((stage.cost for stage in stages(config, size, classes, channels)), Cost())


def stages(config, size=None, classes=None, channels=3):
    """Returns the `Stage` rows of a network with its top, from stem to head.

    Args:
        config: a `NetworkConfig`.
        size: (height, width) of the input; default 32x32, or 224x224 with the ImageNet stem.
        classes: outputs of the head; default 10, or 1000 with the ImageNet stem.
        channels: of the images.
    """
    large = config.stem == "conv7x7_pool"
    size = tuple(size or config.input_size)
    order, width = ORDERS[config.order], config.widths[0]
    first = Conv(width, *((7, 2) if large else (3, 1)))
    size = _shrink(size, first.strides)
    cost = _conv(first, channels, size, config.use_bias) + _bn(order.between, width)
    if config.first_activation != "unit":
        cost += _bn(order.before, width)
    if config.normalize_input:
        cost += Cost(channels, 2 * channels)
    label = f"{first.kernel}x{first.kernel}, {width}"
    if large:
        size, label = _shrink(size, 2), f"{label}, stride 2; 3x3 max-pool, stride 2"
    rows = [Stage("stem", label, size, cost)]
    for i, units in enumerate(plan(config), start=1):
        cost = Cost()
        for unit in units:
            cost += _unit(unit, size)
            size = _shrink(size, unit.strides)
        convs = ", ".join(f"{c.kernel}x{c.kernel} {c.filters}" for c in units[-1].convs)
        rows.append(Stage(f"stage{i}", f"[{convs}] x {len(units)}", size, cost))
    channels, classes = units[-1].filters, classes or config.default_classes
    cost = _bn(order.before, channels) + Cost((channels + 1) * classes, 0, channels * classes)
    rows.append(Stage("head", f"average pool, {classes}-d dense, softmax", (1, 1), cost))
    return rows


def _unit(unit, size):
    order, channels, n = unit.order, unit.channels, len(unit.convs)
    out = _shrink(size, unit.strides)
    cost = Cost() if unit.activated else _bn(order.before, channels)
    for i, c in enumerate(unit.convs, start=1):
        size = _shrink(size, c.strides)
        cost += _conv(c, channels, size, unit.use_bias and i == n)
        channels = c.filters
        cost += _bn(order.between + order.before if i < n else order.tail, channels)
    if unit.shortcut == "project" and unit.join[:2] != ("scaled", 0):
        cost += _conv(Conv(channels, 1), unit.channels, out, unit.use_bias) + _bn(order.tail, channels)
    if "gate" in unit.join[0]:
        cost += _conv(Conv(channels, 1), unit.channels, out, True)
    return cost + _bn(order.after, channels)


def _conv(c, channels, size, use_bias):
    weights = c.kernel**2 * channels * c.filters
    return Cost(weights + c.filters * use_bias, 0, weights * size[0] * size[1])


def _bn(sequence, channels):
    return Cost(2 * channels, 2 * channels) if "b" in sequence else Cost()


def _shrink(size, strides):
    return tuple(ceil(side / strides) for side in size)
