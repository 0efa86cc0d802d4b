"""Networks as plain values: every choice of the paper in one frozen config, and the plan of units it leads to.

Nothing here needs Keras, so that networks are listed and counted without starting a backend. A unit computes
y = h(x) + F(x) and hands f(y) to the next (Eqns. 1 and 2). Where the activations stand is a row of `ORDERS` (Fig. 4),
how h matches the shape of F is the unit's `shortcut` (options A, B and C of [1]), and how the two are joined is one of
`JOINS` (Fig. 2). [1] is "Deep Residual Learning for Image Recognition".
"""
import dataclasses
import math
from numbers import Integral, Real
from typing import NamedTuple

from keras_preact._support.checks import check_choice, is_count


class Order(NamedTuple):
    """What stands where in a unit; "b" is batch normalization, "r" is ReLU."""

    before: str   # before each conv
    between: str  # after each conv but the last
    tail: str     # after the last conv, inside the branch
    after: str    # after the addition


ORDERS = {
    "original": Order("", "br", "b", "r"),                # Fig. 4(a)
    "bn_after_addition": Order("", "br", "", "br"),       # Fig. 4(b)
    "relu_before_addition": Order("", "br", "br", ""),    # Fig. 4(c)
    "relu_preactivation": Order("r", "b", "b", ""),       # Fig. 4(d)
    "full_preactivation": Order("br", "", "", ""),        # Fig. 4(e)
}


class Conv(NamedTuple):
    """One conv of a branch."""

    filters: int
    kernel: int
    strides: int = 1


class Unit(NamedTuple):
    """One residual unit, as `plan` lays it out."""

    name: str
    channels: int             # of the input
    convs: tuple[Conv, ...]   # one, two or three: single-layer, basic, bottleneck
    shortcut: str             # "identity", "pad" or "project"
    order: Order
    join: tuple               # a name of JOINS and its values
    activated: bool = False   # the input has had this unit's first pre-activation already
    epsilon: float = 1e-5
    use_bias: bool = False    # on the last conv and the projection

    @property
    def filters(self):
        return self.convs[-1].filters

    @property
    def strides(self):
        return math.prod(c.strides for c in self.convs)

# How shortcut and branch are joined (Fig. 2): the values that each takes, in their order, and their defaults.
JOINS = {
    "plain": {},
    "scaled": {"shortcut_scale": 0.5, "branch_scale": 0.5},
    "exclusive_gate": {"bias": -6.0},
    "shortcut_gate": {"bias": -6.0},
    "dropout": {"rate": 0.5},
}

# Kernel sizes of the convs in a unit, and how many times wider the last one is than the others.
UNITS = {"single": ((3,), 1), "basic": ((3, 3), 1), "bottleneck": ((1, 3, 1), 4)}

CHOICES = {
    "unit": tuple(UNITS),
    "order": tuple(ORDERS),
    "shortcut": ("zero_pad", "project_on_change", "project_stages", "project_always"),
    "stem": ("conv3x3", "conv7x7_pool"),
    "first_activation": ("stem", "unit", "both"),
    "stride_on": ("first_conv", "conv3x3", "last_unit"),
    "pool_padding": ("zeros", "minus_infinity"),
}

MOST_UNITS = 10_000

IMAGENET_UNITS = {
    10: ("basic", (1, 1, 1, 1)),
    12: ("basic", (2, 1, 1, 1)),
    14: ("basic", (2, 2, 1, 1)),
    16: ("basic", (2, 2, 2, 1)),
    18: ("basic", (2, 2, 2, 2)),
    26: ("basic", (3, 3, 3, 3)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
    269: ("bottleneck", (3, 30, 48, 8)),
}


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Every choice that tells one network of the paper, or of another zoo, from the next.

    The defaults are the paper's; `NetworkConfig.cifar(depth)` and `NetworkConfig.imagenet(depth)` fill in the rest.

    Args:
        units: residual units in each stage, 10,000 in all at most.
        widths: filters of the 3x3 convs in each stage; the first is also the stem's.
        unit: "single" (one 3x3 conv), "basic" (two) or "bottleneck" (1x1, 3x3, and 1x1 to four times the width).
        order: where the activations stand, a name of Fig. 4: "original", "bn_after_addition",
            "relu_before_addition", "relu_preactivation" or "full_preactivation".
        shortcut: "zero_pad" (option A of [1]), "project_on_change" (B: a 1x1 conv where the channels change),
            "project_stages" (in the first unit of every stage) or "project_always" (C, Fig. 2e).
        join: how shortcut and branch are joined, a name of Fig. 2, or a tuple of the name and its values: "plain",
            ("scaled", shortcut, branch), ("exclusive_gate", bias), ("shortcut_gate", bias), ("dropout", rate).
        stem: "conv3x3" (CIFAR), or "conv7x7_pool" (ImageNet), a 7x7 conv of stride 2 and a 3x3 max-pool of stride 2.
        first_activation: where the first unit's pre-activation stands. "stem": after the first conv, before any
            pooling and for both paths (appendix); "unit": in the unit, for the branch, and for the shortcut if it
            projects; "both".
        stride_on: what halves the feature map between stages: the "first_conv" of the next stage, its first
            "conv3x3", or the 3x3 conv of the "last_unit" of the stage before.
        use_bias: whether the stem's conv, the last conv of a unit and the projections have a bias.
        epsilon: of batch normalization.
        pool_padding: "zeros" or "minus_infinity", which differ where pooling does not follow a ReLU.
        normalize_input: whether a batch normalization without scale stands before the first conv.

    Raises:
        ValueError: a value that is not among the choices, or does not fit the others.

    Example:

    >>> config = kp.NetworkConfig((2, 2), (16, 32), order="original")
    >>> config.depth
    10
    """

    units: tuple
    widths: tuple
    unit: str = "basic"
    order: str = "full_preactivation"
    shortcut: str = "zero_pad"
    join: tuple = ("plain",)
    stem: str = "conv3x3"
    first_activation: str = "stem"
    stride_on: str = "first_conv"
    use_bias: bool = False
    epsilon: float = 1e-5
    pool_padding: str = "zeros"
    normalize_input: bool = False

    def __post_init__(self):
        for field, choices in CHOICES.items():
            check_choice(field, getattr(self, field), choices)
        object.__setattr__(self, "join", _checked_join(self.join))
        for field in ("units", "widths"):
            value = getattr(self, field)
            if not isinstance(value, (tuple, list)) or not value or not all(map(is_count, value)):
                raise ValueError(f"`{field}` must be a positive integer for each stage. Received: {value!r}")
            object.__setattr__(self, field, tuple(map(int, value)))
        if len(self.units) != len(self.widths):
            raise ValueError(
                "`units` and `widths` must have one number for each stage. "
                f"Received: units={self.units}, widths={self.widths}"
            )
        if sum(self.units) > MOST_UNITS:
            raise ValueError(
                f"`units` must be at most {MOST_UNITS:,} in all; PreActResNet1202 has 600. "
                f"Received: units={self.units}"
            )
        for field in ("use_bias", "normalize_input"):
            check_choice(field, getattr(self, field), (True, False))
        if not isinstance(self.epsilon, Real) or not 0 < self.epsilon < math.inf:
            raise ValueError(f"`epsilon` must be a positive number. Received: {self.epsilon!r}")
        if self.shortcut == "zero_pad" and (self.unit == "bottleneck" or list(self.widths) != sorted(self.widths)):
            raise ValueError(
                "shortcut='zero_pad' adds channels of zeros, which wants single or basic units whose widths do not "
                "shrink; take shortcut='project_on_change'. "
                f"Received: unit={self.unit!r}, widths={self.widths}"
            )

    @classmethod
    def cifar(cls, depth, unit="basic", **changes):
        """The network of `depth` layers for 32x32 images (Sec. 4.2 of [1] and the paper's appendix).

        Args:
            depth: 6n+2 with basic units, 9n+2 with bottleneck units, 3n+2 with single-layer units.
            unit: as in `NetworkConfig`.
            **changes: other fields of `NetworkConfig`.

        Raises:
            ValueError: a depth that does not fit the units.
        """
        check_choice("unit", unit, CHOICES["unit"])
        step = 3 * len(UNITS[unit][0])
        if not isinstance(depth, Integral):
            raise ValueError(f"`depth` must be an integer, {step}n+2. Received: {depth!r}")
        n, rest = divmod(depth - 2, step)
        if rest or n < 1:
            nearest = sorted({step * max(m, 1) + 2 for m in (n, n + 1)})
            raise ValueError(
                f"A CIFAR network of {unit} units has {step}n+2 layers. "
                f"Received: depth={depth}; the nearest that fits is {' or '.join(map(str, nearest))}."
            )
        shortcut = "project_on_change" if unit == "bottleneck" else "zero_pad"
        return cls((n, n, n), (16, 32, 64), unit, **({"shortcut": shortcut} | changes))

    @classmethod
    def imagenet(cls, depth, **changes):
        """The network of `depth` layers for 224x224 images (Table 1 of [1], Facebook's Torch code and pytorchcv).

        Args:
            depth: 10, 12, 14, 16, 18, 26, 34, 50, 101, 152, 200 or 269.
            **changes: other fields of `NetworkConfig`.

        Raises:
            ValueError: any other depth.
        """
        if not is_count(depth) or depth not in IMAGENET_UNITS:
            raise ValueError(
                f"An ImageNet network has {', '.join(map(str, IMAGENET_UNITS))} layers. Received: depth={depth!r}"
            )
        unit, units = IMAGENET_UNITS[depth]
        canonical = {"shortcut": "project_on_change", "stem": "conv7x7_pool", "stride_on": "conv3x3"}
        return cls(units, (64, 128, 256, 512), unit, **(canonical | changes))

    @property
    def depth(self):
        """Layers with weights on the longest path: the convs of stem and units, and the dense layer."""
        return 2 + sum(self.units) * len(UNITS[self.unit][0])

    @property
    def input_size(self):
        """(height, width) the network was made for: 32x32, or 224x224 with the ImageNet stem."""
        return (224, 224) if self.stem == "conv7x7_pool" else (32, 32)

    @property
    def default_classes(self):
        """Classes of the data set the network was made for: 10, or 1000 with the ImageNet stem."""
        return 1000 if self.stem == "conv7x7_pool" else 10

    @property
    def stride(self):
        """Pixels of the input for one of the last feature map, along each side."""
        return 2 ** (len(self.units) - 1) * (4 if self.stem == "conv7x7_pool" else 1)


def _checked_join(join):
    """Returns `join` as a tuple of a name of Fig. 2 and its values, all of them or, for its defaults, none."""
    name, *values = join if isinstance(join, (tuple, list)) and join else (join,)
    check_choice("join", name, tuple(JOINS))
    names = JOINS[name]
    if len(values) not in (0, len(names)) or not all(isinstance(v, Real) and math.isfinite(v) for v in values):
        takes = f"the numbers {', '.join(names)}" if names else "no values"
        raise ValueError(f"`join` {name!r} takes {takes}. Received: {join!r}")
    if name == "dropout" and values and not 0 <= values[0] < 1:
        raise ValueError(f"`join` 'dropout' takes a rate of at least 0 and below 1. Received: {join!r}")
    return name, *values


def plan(config):
    """Returns the network's residual units, one list of `Unit` for each stage."""
    kernels, expansion = UNITS[config.unit]
    order = ORDERS[config.order]
    strided_conv = kernels.index(3) if config.stride_on != "first_conv" else 0
    strided_last = config.stride_on == "last_unit"
    channels, stages = config.widths[0], []
    for s, (count, width) in enumerate(zip(config.units, config.widths), start=1):
        stage = []
        for u in range(1, count + 1):
            strides = 2 if (u == count and s < len(config.units) if strided_last else u == 1 and s > 1) else 1
            filters = width * expansion
            convs = tuple(
                Conv(filters if i == len(kernels) - 1 else width, k, strides if i == strided_conv else 1)
                for i, k in enumerate(kernels)
            )
            if config.shortcut == "zero_pad":
                shortcut = "identity" if channels == filters else "pad"
            else:
                projects = (
                    channels != filters
                    or config.shortcut == "project_always"
                    or (config.shortcut == "project_stages" and u == 1)
                )
                shortcut = "project" if projects else "identity"
            activated = s == u == 1 and config.first_activation == "stem"
            stage.append(Unit(
                f"stage{s}_unit{u}", channels, convs, shortcut, order, config.join, activated,
                config.epsilon, config.use_bias,
            ))
            channels = filters
        stages.append(stage)
    return stages
