"""Fine-tuning: as a whole, or which parts of a network are trained; the statistics of its batch normalizations."""
import dataclasses
import os
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keras_preact._support.checks import check_choice, check_count
from keras_preact.data import datasets, streams
from keras_preact.data.batches import batches_of
from keras_preact.networks.carried import config_of
from keras_preact.networks.graph import layers_of, normalizations_of, part_of, parts_of
from keras_preact.training import recipes, runs
from keras_preact.training.engine import Engine, train

BN = ("frozen", "trained")


def fine_tune(
    model: keras.Model,
    data: Any,
    output: str | os.PathLike,
    size: int | None = None,
    seed: int = 1,
    engine: Engine | None = None,
    hold_out: int = 0,
    verbose: int | str = "auto",
    **changes: Any,
) -> keras.Model:
    """Trains a pretrained network for other classes, or goes on where the same call was stopped before.

    The new last layer is trained alone at first, then the whole network, the less the nearer to the image. Images are
    normalized as those that the weights were trained on. `output` is the folder of a run, as of `train`, which is
    evaluated, exported and published like any other.

    Args:
        model: a network of the zoo with trained weights and `preprocessing`; it stays as it is. The last layer is
            trained anew unless `model.labels` are the classes of the data.
        data: what `train` takes, such as a folder of class folders of photographs.
        output: the folder of the run.
        size: side in pixels to which photographs are cropped; default that of the weights.
        seed, engine, hold_out, verbose: as of `train`.
        **changes: fields of the recipe "fine_tune", `recipes.for_fine_tuning`, whose number of epochs follows from
            that of the images: epochs=10, or bn="frozen" with learning_rate=0.01.

    Returns:
        The network with the weights after the last epoch, its `labels` and `preprocessing`.

    Raises:
        ValueError: as `train`; a model that is no network of the zoo or has no `preprocessing`; `size` for images that
            have one size.

    Example:

    >>> model = kp.PreActResNet20(weights="cifar10")
    >>> flowers = kp.fine_tune(model, "flower_photos", "runs/flowers", epochs=2, verbose=0)
    >>> flowers.labels
    ('daisy', 'rose')
    """
    config, preprocessing = config_of(model), getattr(model, "preprocessing", None)
    if config is None or preprocessing is None:
        raise ValueError(
            "`model` must be a network of the zoo with trained weights, whose `preprocessing` is set. Received: "
            f"{model.name} with preprocessing={preprocessing}"
        )
    data = datasets.load(data)
    photographs = isinstance(data, streams.Stream)
    if size is not None and not photographs:
        raise ValueError(f"`size` is for photographs, and the images of {data.name} have one size. Received: {size}")
    recipe = recipes.for_fine_tuning(data.train_images - hold_out, photographs)
    recipe = dataclasses.replace(recipe, **{"warmup_of": None, "size": size or preprocessing.size[0]} | changes)
    data = datasets.for_recipe(data, recipe, config)
    statistics = {field: getattr(preprocessing, field) for field in ("mean", "std")}
    data = dataclasses.replace(data, preprocessing=dataclasses.replace(data.preprocessing, **statistics))
    known = tuple(model.labels or ()) == tuple(data.labels)
    start = model if known else keras.Model(model.inputs, model.get_layer("avg_pool").output, name=model.name)
    start.origin = model.origin
    train(config, data, recipe, output, seed, engine, hold_out, verbose, start)
    return runs.load_run(output)[0]


def freeze(model: keras.Model, until: str = "predictions", bn: str = "frozen") -> list[str]:
    """Freezes the layers before `until`, and trains those from there on.

    Args:
        model: a network of the zoo, also inside a Sequential or another model.
        until: the first part that is trained: "stem", "stage1", "stage2" ..., "closing" or "predictions"; another head
            is named as its layer up to the first underscore.
        bn: "frozen" freezes every batch normalization, in the trained part, too: its statistics stay as they are to
            the bit and its gamma and beta are not trained; "trained" trains those of the trained part.

    Returns:
        The names of the layers with weights that are trained. Compile the model afterwards.

    Raises:
        ValueError: there is no such part, or another `bn`.

    Example:

    >>> model = kp.PreActResNet20(weights="cifar10")
    >>> kp.freeze(model, until="predictions")
    ['predictions']
    """
    check_choice("bn", bn, BN)
    layers = layers_of(model)
    parts = parts_of(model)
    check_choice("until", until, parts)
    trained = parts[parts.index(until):]
    model.trainable = True  # those of models inside it, too, which would freeze whatever they hold
    for layer in layers:
        layer.trainable = part_of(layer.name) in trained
    if bn == "frozen":
        for norm in normalizations_of(model):
            norm.trainable = False
    return [layer.name for layer in layers if layer.trainable_weights]


def unfreeze(model: keras.Model, bn: str = "frozen") -> list[str]:
    """Trains every layer again; batch normalization stays frozen unless `bn` is "trained". As `freeze`.

    Example:

    >>> model = kp.PreActResNet20(weights="cifar10")
    >>> kp.unfreeze(model)[0]
    'stem_conv'
    """
    parts = parts_of(model)
    if not parts:
        raise ValueError(f"`model` must have weights: build it first. Received: {model.name}")
    return freeze(model, parts[0], bn)


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

