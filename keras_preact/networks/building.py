"""Whole networks: a stem, stages of residual units, a closing activation and a head, laid out by a `NetworkConfig`."""
import dataclasses
import inspect
import math
import sys
from contextlib import contextmanager
from numbers import Integral, Real

import keras
from keras import layers

from keras_preact._support.checks import check_choice
from keras_preact.networks.units import JOINS, ORDERS, Conv, Unit, activate, channel_axis, conv, residual_unit

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

IMAGENET_UNITS = {
    18: ("basic", (2, 2, 2, 2)),
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
        units: residual units in each stage.
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
        """The network of `depth` layers for 224x224 images (Table 1 of [1]; 200 and 269 by Facebook's Torch code).

        Args:
            depth: 18, 34, 50, 101, 152, 200 or 269.
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


def is_count(value):
    """Whether `value` is a positive integer, of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0


def _checked_join(join):
    """Returns `join` as a tuple of a name of Fig. 2 and its values, all of them or, for its defaults, none."""
    name, *values = join if isinstance(join, (tuple, list)) and join else (join,)
    check_choice("join", name, tuple(JOINS))
    names = list(inspect.signature(JOINS[name]).parameters)[4:]
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


def stem(x, config):
    order = ORDERS[config.order]
    if config.normalize_input:
        x = activate(x, "b", "input_bn", None, config.epsilon, scale=False)
    large = config.stem == "conv7x7_pool"
    x = conv(x, Conv(config.widths[0], *((7, 2) if large else (3, 1))), "stem_conv", config.use_bias)
    sequence = order.between + (order.before if config.first_activation != "unit" else "")
    x = activate(x, sequence, "stem_bn", "stem_relu", config.epsilon)
    if large and config.pool_padding == "zeros":
        x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    elif large:
        # At stride 1 "same" pads all sides, and with minus infinity; every second pixel of that is the pool wanted.
        x = layers.MaxPooling2D(3, 1, "same", name="stem_pool_max")(x)
        x = layers.MaxPooling2D(1, 2, name="stem_pool")(x)
    return x


def chain(x, units):
    """Returns the output of `units`, one after the other."""
    for unit in units:
        x = residual_unit(x, unit)
    return x


def features(x, config, stage=chain):
    """Returns the last feature map, after the closing activation; `stage` applies a list of units."""
    x = stem(x, config)
    for units in plan(config):
        x = stage(x, units)
    return activate(x, ORDERS[config.order].before, "closing_bn", "closing_relu", config.epsilon)


def head(x, classes, activation):
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    policy = keras.config.dtype_policy()
    # Probabilities of half precision are of little use, and TF Serving has no JSON form for them.
    dtype = "float32" if policy.compute_dtype in ("float16", "bfloat16") else policy
    return layers.Dense(
        classes, activation=activation, name="predictions", dtype=dtype,
        kernel_initializer=keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),  # Torch's nn.Linear
    )(x)


def ResNet(
    config,
    include_top=True,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=None,
    classifier_activation="softmax",
    name="resnet",
):
    """Builds the residual network that `config` describes, with random weights.

    Every row of the paper's Tables 1 to 3 is one call, for instance the gated shortcuts of Table 1:

    >>> config = NetworkConfig.cifar(110, order="original", join=("exclusive_gate", -6))
    >>> model = ResNet(config)

    Args:
        config: a `NetworkConfig`.
        include_top: whether to end with global average pooling and a dense layer, named "predictions".
        input_tensor: a Keras tensor to start from; default a new `keras.Input`.
        input_shape: (height, width, channels), or (channels, height, width) if the image data format is
            "channels_first"; height and width may be None and are at least `config.stride`. Default: 32x32x3 or
            224x224x3 by the stem, and any size where `include_top` is False.
        pooling: without the top, None for the last feature map of shape (batch, height, width, channels), "avg" or
            "max" for features of shape (batch, channels).
        classes: outputs of the dense layer; default 10 or 1000 by the stem.
        classifier_activation: of the dense layer; None for logits.
        name: of the model.

    Returns:
        A functional `keras.Model` of built-in layers.

    Raises:
        ValueError, TypeError: arguments that contradict each other, or a size that the strides do not allow.

    Reference: He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016, and its appendix.
    """
    if not isinstance(config, NetworkConfig):
        raise TypeError(f"`config` must be a NetworkConfig. Received: {config!r} of type {type(config).__name__}")
    check_top(include_top, pooling, classes)
    inputs = _input(config, include_top, input_tensor, input_shape)
    x = features(inputs, config)
    if include_top:
        x = head(x, int(classes or config.default_classes), classifier_activation)
    elif pooling:
        pool = layers.GlobalAveragePooling2D if pooling == "avg" else layers.GlobalMaxPooling2D
        x = pool(name=f"{pooling}_pool")(x)
    if input_tensor is not None:
        sources = keras.utils.get_source_inputs(input_tensor)
        inputs = sources[0] if len(sources) == 1 else sources
    with deep_enough(config):
        return keras.Model(inputs, x, name=name)


def check_top(include_top, pooling, classes):
    """Raises ValueError where these three arguments contradict each other."""
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"`pooling` must be None, 'avg' or 'max'. Received: {pooling!r}")
    if classes is not None and not include_top:
        raise ValueError(
            "`classes` counts the outputs of the top, which include_top=False leaves out; give one or the other. "
            f"Received: classes={classes}"
        )
    if classes is not None and not is_count(classes):
        raise ValueError(f"`classes` must be a positive integer. Received: {classes!r}")


def _input(config, include_top, tensor, shape):
    first = channel_axis() == 1
    if tensor is not None:
        if not keras.backend.is_keras_tensor(tensor):
            raise TypeError(f"`input_tensor` must be a Keras tensor, as from keras.Input. Received: {tensor!r}")
        if shape is not None and (not isinstance(shape, (tuple, list)) or tuple(shape) != tuple(tensor.shape[1:])):
            raise ValueError(
                "`input_shape` must be the shape of `input_tensor` where both are given. "
                f"Received: {shape!r} and {tuple(tensor.shape[1:])}"
            )
        shape = tensor.shape[1:]
    elif shape is None:
        size = config.input_size if include_top else (None, None)
        shape = (3, *size) if first else (*size, 3)
    order = "(channels, height, width)" if first else "(height, width, channels)"
    sizes = list(shape) if isinstance(shape, (tuple, list)) else []
    channels = sizes.pop(0 if first else -1) if len(sizes) == 3 else None
    if not is_count(channels) or not all(side is None or is_count(side) for side in sizes):
        raise ValueError(
            f"`input_shape` must be {order}, positive integers of which only height and width may be None. "
            f"Received: {shape!r}"
        )
    shape, sides = tuple(shape), sizes
    if any(side is not None and side < config.stride for side in sides):
        raise ValueError(
            f"This network's last feature map has 1/{config.stride} of the height and width of the input, so "
            f"`input_shape`, {order}, must be at least {config.stride} pixels high and wide. Received: {shape}"
        )
    return keras.Input(shape) if tensor is None else tensor


def deep_enough(config):
    """Raises Python's recursion limit as far as Keras needs it, which walks a path through the network recursively.

    With the shortcut first in every Add that path is the one along the shortcuts: one layer a unit in plain
    pre-activation networks, so that 1202 layers pass without this, but more where the join or a projection adds some or
    activations follow the addition, and all of a branch where its shortcut is scaled by 0.
    """
    return recursion_limit(20 * sum(config.units))  # no unit has more layers in a row


def nodes_of(model):
    """Returns each use of a layer in `model`, inputs first: a node has `operation`, `input_tensors`, `output_tensors`.

    A layer's own `input` and `output` may be those of another model that uses it and, if it is a model, are inside it.
    """
    return [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]


@contextmanager
def recursion_limit(layers):
    """Raises Python's recursion limit so that Keras can walk a path of so many layers."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 300 + layers))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


@contextmanager
def dtype_policy(policy):
    """Sets Keras's dtype policy, and afterwards that of before."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
