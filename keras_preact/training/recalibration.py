"""The statistics of batch normalization, computed anew."""
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keras_preact._support.checks import check_count
from keras_preact.data.batches import batches_of
from keras_preact.networks.graph import normalizations_of


def recalibrate(model: keras.Model, images: Any, batch_size: int = 128) -> None:
    """Replaces the moving statistics of batch normalization by those that `images` have under the weights of now.

    For images of another kind than those of training, such as darker or noisier ones; labels are not needed. For images
    of the same kind the moving averages, which are of augmented images, are the better ones as a rule. Each layer is
    handed what the layers before it make of a batch with its own statistics, as in training; mean and variance are then
    those over all images ("PreciseBN", Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3).

    Args:
        model: a network of the zoo, also inside a Sequential or another model; frozen batch normalizations stay as
            they are.
        images: what `model.fit` takes, hundreds of images or more, preprocessed as for it: an array of shape (images,
            height, width, channels), or an iterable of batches, which are such arrays or begin with one, as those of
            (images, labels) of Keras's data sets; sizes may differ.
        batch_size: of an array, in images; best that of training.

    Raises:
        ValueError: there are no images, or images of another shape, or they never end; or every batch normalization is
            frozen.

    Example:

    >>> model = kp.PreActResNet20(weights="cifar10")
    >>> kp.recalibrate(model, kp.preprocess_input(images // 2, model))
    """
    check_count("batch_size", batch_size)
    norms = [norm for norm in normalizations_of(model) if norm.trainable]
    if not norms:
        raise ValueError(
            "`recalibrate` changes batch normalizations that are not frozen, and the model has none: call "
            "unfreeze(model, bn='trained') before."
        )
    seen: dict[Any, list] = {norm: [] for norm in norms}
    with _recording(seen):
        for batch in _batches(images, batch_size):
            _check_batch(batch, model)
            model.stateless_call(model.trainable_variables, model.non_trainable_variables, batch, training=True)
    if not any(seen.values()):
        raise ValueError("`images` must hold at least one image. Received: none")
    for norm, calls in seen.items():
        if not calls:
            continue  # the model does not use it
        weights, means, variances = (np.array(values, "float64") for values in zip(*calls))
        mean, square = (np.average(values, 0, weights) for values in (means, variances + means**2))
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(np.maximum(square - mean**2, 0))


@contextmanager
def _recording(seen):
    """Lets each batch normalization in `seen` compute as in training, and note there (pixels, mean, variance)."""
    def recorded(norm, call):
        def of_batch(inputs, training=None, mask=None):
            # So that what the layer makes of them is the statistics of the batch alone, times 1 - momentum.
            pair = norm.moving_mean, norm.moving_variance
            for statistic in pair:
                statistic.assign(keras.ops.zeros(statistic.shape, statistic.dtype))
            outputs = call(inputs, training=True, **({} if mask is None else {"mask": mask}))
            values = [np.asarray(keras.ops.convert_to_numpy(v.value), "float64") / (1 - norm.momentum) for v in pair]
            seen[norm].append((np.prod(inputs.shape) / norm.moving_mean.shape[0], *values))
            return outputs

        return of_batch

    before = {norm: vars(norm).get("call") for norm in seen}
    try:
        for norm in seen:
            norm.call = recorded(norm, norm.call)
        yield
    finally:
        for norm, call in before.items():
            vars(norm).pop("call")
            if call:
                norm.call = call


def _batches(images, batch_size):
    """Yields the images of each batch in what `fit` takes."""
    if hasattr(images, "shape"):
        batches = (images[start:start + batch_size] for start in range(0, len(images), batch_size))
    else:
        batches = batches_of(images, "`images`")
    for batch in batches:
        yield batch[0] if isinstance(batch, (tuple, list)) else batch


def _check_batch(batch, model):
    wanted, shape = getattr(model, "input_shape", None), tuple(getattr(batch, "shape", ()))
    if not isinstance(wanted, tuple):
        return  # a model of several inputs, or without a graph
    if len(shape) != len(wanted) or any(side not in (None, given) for side, given in zip(wanted[1:], shape[1:])):
        raise ValueError(
            f"`images` must be batches of shape (images, {', '.join(map(str, wanted[1:]))}), alone or with labels. "
            f"Received: {shape or type(batch).__name__}"
        )
