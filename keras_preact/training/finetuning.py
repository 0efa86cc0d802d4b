"""Fine-tuning: as a whole, or which parts of a network are trained."""
import dataclasses
import os
from typing import Any

import keras

from keras_preact._support.checks import check_choice
from keras_preact.data import datasets, streams
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
