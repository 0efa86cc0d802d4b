"""Whole networks: a stem, stages of residual units, a closing activation and a head, laid out by a `NetworkConfig`."""
from typing import Any

import keras
from keras import layers

from keras_preact._support.checks import as_list, check_count, is_count
from keras_preact.networks.carried import carry
from keras_preact.networks.config import ORDERS, Conv, NetworkConfig, plan
from keras_preact.networks.graph import deep_enough
from keras_preact.networks.units import activate, channel_axis, conv, residual_unit


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
    config: NetworkConfig,
    include_top: bool = True,
    input_tensor: Any = None,
    input_shape: tuple | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: Any = "softmax",
    name: str = "resnet",
) -> keras.Model:
    """Builds the residual network that `config` describes, with random weights.

    Every row of the paper's Tables 1 to 3 is one call, for instance the gated shortcuts of Table 1:

    >>> config = kp.NetworkConfig.cifar(110, order="original", join=("exclusive_gate", -6))
    >>> model = kp.ResNet(config)

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
        A functional `keras.Model` of built-in layers. Its attributes `preprocessing` and `labels` are None; what they
        are set to `model.save` keeps in .keras files.

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
        model = keras.Model(inputs, x, name=name)
    model.preprocessing = model.labels = model.origin = None  # which trained weights know
    carry(model, config)
    return model


def check_top(include_top, pooling, classes):
    """Raises ValueError where these three arguments contradict each other."""
    if include_top not in (True, False):
        raise ValueError(f"`include_top` must be True or False. Received: {include_top!r}")
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"`pooling` must be None, 'avg' or 'max'. Received: {pooling!r}")
    if classes is not None and not include_top:
        raise ValueError(
            "`classes` counts the outputs of the top, which include_top=False leaves out; give one or the other. "
            f"Received: classes={classes}"
        )
    if classes is not None:
        check_count("classes", classes)


def _input(config, include_top, tensor, shape):
    first = channel_axis() == 1
    if tensor is not None:
        if not keras.backend.is_keras_tensor(tensor):
            raise TypeError(f"`input_tensor` must be a Keras tensor, as from keras.Input. Received: {tensor!r}")
        if shape is not None and as_list(shape) != list(tensor.shape[1:]):
            raise ValueError(
                "`input_shape` must be the shape of `input_tensor` where both are given. "
                f"Received: {shape!r} and {tuple(tensor.shape[1:])}"
            )
        shape = tensor.shape[1:]
    elif shape is None:
        size = config.input_size if include_top else (None, None)
        shape = (3, *size) if first else (*size, 3)
    order = "(channels, height, width)" if first else "(height, width, channels)"
    sizes = as_list(shape)
    channels = sizes.pop(0 if first else -1) if len(sizes) == 3 else None
    if not is_count(channels) or not all(side is None or is_count(side) for side in sizes):
        raise ValueError(
            f"`input_shape` must be {order}, positive integers of which only height and width may be None. "
            f"Received: {shape!r}"
        )
    shape = tuple(shape)
    if any(side is not None and side < config.stride for side in sizes):
        raise ValueError(
            f"This network's last feature map has 1/{config.stride} of the height and width of the input, so "
            f"`input_shape`, {order}, must be at least {config.stride} pixels high and wide. Received: {shape}"
        )
    return keras.Input(shape) if tensor is None else tensor
