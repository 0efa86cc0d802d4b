"""A form of any Keras model for training: batch normalization by the backend's fused kernel, or over groups of images.

Keras's `BatchNormalization` composes the statistics and the normalization of a training step from a dozen operations.
The layers stay what they are, and so do their variables, configs and files; only what they call while they train is
another.
"""
from functools import partial

import keras
from keras import ops

from keras_preact._support.checks import is_count
from keras_preact.networks.graph import normalizations_of


def fuse_batch_norm(model: keras.Model, group: int | None = None) -> int:
    """Lets the batch normalizations of a model train by the backend's fused kernel: the same numbers, faster.

    Call it before `model.fit`; the model stays a plain Keras model, which saves and opens without this package. A copy
    or a reloaded model is not fused. In inference, with a mask and while a layer is frozen Keras's own code runs, as it
    does on JAX, where XLA fuses it.

    >>> import keras, keras_preact as kp
    >>> model = keras.applications.ResNet50V2(weights=None)
    >>> kp.fuse_batch_norm(model)
    49

    Args:
        model: any Keras model; layers of models inside it are found, too.
        group: images whose statistics are taken together, which must divide the batch: 64 normalizes a batch of 128 as
            two devices with 64 images each would ("ghost batch normalization", Hoffer et al. 2017). Default: the batch.
            Groups are computed by Keras's operations, on every backend.

    Returns:
        How many layers were changed. Others are left as they are: subclasses of `keras.layers.BatchNormalization`,
        those that normalize another axis than the channels of feature maps of rank 4, and those with `renorm` or
        `synchronized`.

    Raises:
        ValueError: `group` is not a positive integer; while it trains, a batch that is no multiple of it.
    """
    if group is not None and not is_count(group):
        raise ValueError(f"`group` must be a positive integer, a number of images. Received: {group!r}")
    layers = [layer for layer in normalizations_of(model) if _normalizes_channels(layer)]
    kernel = partial(_composed, group=group) if group else KERNELS.get(keras.backend.backend())
    for layer in layers:
        vars(layer).pop("call", None)
        if kernel:
            layer.call = partial(_call, layer, kernel)
    model.train_function = None  # which was traced with what the layers called before
    return len(layers) if kernel else 0


def _normalizes_channels(layer):
    return (
        type(layer) is keras.layers.BatchNormalization and layer.built and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3, 1) and not getattr(layer, "renorm", False) and not layer.synchronized
    )


def _call(layer, kernel, inputs, training=None, mask=None):
    """`BatchNormalization.call`, in which `kernel` takes the statistics and normalizes."""
    if not (training and layer.trainable) or mask is not None:
        return type(layer).call(layer, inputs, training=training, mask=mask)
    dtype = "float64" if keras.backend.standardize_dtype(inputs.dtype) == "float64" else "float32"
    size = layer.moving_mean.shape
    gamma = ops.cast(layer.gamma, dtype) if layer.scale else ops.ones(size, dtype)
    beta = ops.cast(layer.beta, dtype) if layer.center else ops.zeros(size, dtype)
    outputs, *statistics = kernel(inputs, gamma, beta, layer.epsilon, layer.axis)
    for moving, value in zip((layer.moving_mean, layer.moving_variance), statistics):
        moving.assign(ops.cast(moving, dtype) * layer.momentum + value * (1 - layer.momentum))
    return ops.cast(outputs, layer.compute_dtype)


# Kernels: they take a feature map, gamma, beta, epsilon and the axis of the channels, and return the normalized feature
# map and the mean and variance of each channel; the variance is biased, as Keras keeps it.

def _tensorflow(x, gamma, beta, epsilon, axis):
    import tensorflow as tf

    if x.dtype == tf.float64:
        return _composed(x, gamma, beta, epsilon, axis)
    # The public function raises epsilon to 1.001e-5.
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon,
        data_format="NCHW" if axis == 1 else "NHWC",
    )
    count = tf.cast(tf.size(x) // tf.size(mean), mean.dtype)
    return y, mean, variance * (count - 1) / count


def _torch(x, gamma, beta, epsilon, axis):
    import torch

    count = x.numel() // len(gamma)
    if count == 1:
        return _composed(x, gamma, beta, epsilon, axis)
    mean, variance = torch.zeros_like(gamma), torch.zeros_like(gamma)
    channels_first = x if axis == 1 else x.movedim(-1, 1)
    y = torch.nn.functional.batch_norm(channels_first, mean, variance, gamma, beta, True, 1.0, epsilon)
    return y if axis == 1 else y.movedim(1, -1), mean, variance * (count - 1) / count


KERNELS = {"tensorflow": _tensorflow, "torch": _torch}


def _composed(x, gamma, beta, epsilon, axis, group=None):
    """The kernel of every backend and precision. `group` images have their own statistics, which are averaged."""
    batch, *shape = ops.shape(x)
    if group and isinstance(batch, int) and batch % group:
        raise ValueError(f"`group` must divide the batch of {batch} images. Received: {group}")
    groups = ops.reshape(ops.cast(x, gamma.dtype), (-1, group, *shape) if group else (1, batch, *shape))
    channels = 2 if axis == 1 else 4
    axes = [i for i in range(1, 5) if i != channels]
    mean, variance = ops.moments(groups, axes, keepdims=True)
    gamma, beta = (ops.reshape(v, [-1 if i == channels else 1 for i in range(5)]) for v in (gamma, beta))
    y = (groups - mean) * ops.rsqrt(variance + epsilon) * gamma + beta
    return ops.reshape(y, (batch, *shape)), *(ops.mean(v, (0, *axes)) for v in (mean, variance))
