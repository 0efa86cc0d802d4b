"""Freezing parts of a network for fine-tuning."""
import keras

from keras_preact.checks import check_choice

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


def _part(layer):
    return layer.name.split("_")[0]
