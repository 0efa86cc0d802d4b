"""Fine-tuning: which parts of a network are trained, and the statistics of its batch normalizations."""
import keras
import numpy as np

from keras_preact._support.checks import check_choice

BN = ("frozen", "trained")


def freeze(model, until="predictions", bn="frozen"):
    """Freezes the layers before `until`, and trains those from there on.

    Args:
        model: a network of the zoo.
        until: the first part that is trained: "stem", "stage1", "stage2" ..., "closing" or "predictions".
        bn: "frozen" freezes every batch normalization, in the trained part, too: its statistics stay as they are to
            the bit and its gamma and beta are not trained; "trained" trains those of the trained part.

    Returns:
        The names of the layers with weights that are trained. Compile the model afterwards.

    Raises:
        ValueError: there is no such part, or another `bn`.
    """
    check_choice("bn", bn, BN)
    parts = []
    for layer in model.layers:
        part = _part(layer)
        if part not in parts and layer.weights:
            parts.append(part)
    check_choice("until", until, parts)
    trained = parts[parts.index(until):]
    for layer in model.layers:
        frozen = bn == "frozen" and isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = _part(layer) in trained and not frozen
    return [layer.name for layer in model.layers if layer.trainable_weights]


def unfreeze(model, bn="frozen"):
    """Trains every layer again; batch normalization stays frozen unless `bn` is "trained". As `freeze`."""
    return freeze(model, _part(next(layer for layer in model.layers if layer.weights)), bn)


def recalibrate(model, images, batch_size=128):
    """Replaces the moving statistics of batch normalization by those that `images` have under the weights of now.

    For images of another kind than those of training, such as darker or noisier ones; labels are not needed. For images
    of the same kind the moving averages, which are of augmented images, are the better ones as a rule. Each layer is
    handed what the layers before it make of a batch with its own statistics, as in training; mean and variance are then
    those over all images ("PreciseBN", Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3).

    Args:
        model: a network of the zoo; frozen batch normalizations stay as they are.
        images: preprocessed images, hundreds or more: an array of shape (images, height, width, channels), or an
            iterable of such batches, whose sizes may differ.
        batch_size: of an array, in images; best that of training.

    Raises:
        ValueError: there are no images, or every batch normalization is frozen.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    if not norms:
        raise ValueError(
            "`recalibrate` changes batch normalizations that are not frozen, and the model has none: call "
            "unfreeze(model, bn='trained') before."
        )
    batches = images
    if hasattr(images, "shape"):
        batches = (images[start:start + batch_size] for start in range(0, len(images), batch_size))
    state = list(model.non_trainable_variables)
    place = {id(variable): i for i, variable in enumerate(state)}
    places = [(place[id(norm.moving_mean)], place[id(norm.moving_variance)]) for norm in norms]
    for i in sum(places, ()):
        # So that what a step makes of them is the statistics of the batch alone, times 1 - momentum.
        state[i] = keras.ops.zeros(state[i].shape, state[i].dtype)
    seen, sums = 0, [(0.0, 0.0)] * len(norms)
    for batch in batches:
        _, new = model.stateless_call(model.trainable_variables, state, batch, training=True)
        seen += len(batch)
        for i, (norm, pair) in enumerate(zip(norms, places)):
            mean, variance = (keras.ops.convert_to_numpy(new[j]).astype("float64") / (1 - norm.momentum) for j in pair)
            total, squares = sums[i]
            sums[i] = total + len(batch) * mean, squares + len(batch) * (variance + mean**2)
    if not seen:
        raise ValueError("`images` must hold at least one image. Received: none")
    for norm, (total, squares) in zip(norms, sums):
        mean = total / seen
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(np.maximum(squares / seen - mean**2, 0))


def _part(layer):
    return layer.name.split("_")[0]
