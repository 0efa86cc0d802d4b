"""Freezing: what is trained and what stays as it is, to the bit."""
import helpers
import keras
import numpy as np
import pytest

import keras_preact as kp
from keras_preact.networks import NetworkConfig, ResNet


def fitted(model):
    """Returns the names of the weights that two steps of training changed."""
    before = helpers.weights_of(model)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=False)
    x = np.random.default_rng(0).normal(1, 2, (8, 8, 8, 3)).astype("float32")
    model.fit(x, np.arange(8) % 3, batch_size=4, verbose=0)
    after = helpers.weights_of(model)
    return {name for name in before if not np.array_equal(before[name], after[name])}


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return ResNet(NetworkConfig((1, 1, 1), (4, 6, 8)), input_shape=(8, 8, 3), classes=3)


@pytest.mark.parametrize("until, parts", [
    ("predictions", {"predictions"}), ("stage3", {"stage3", "closing", "predictions"}),
    ("stem", {"stem", "stage1", "stage2", "stage3", "closing", "predictions"}),
])
def test_only_the_parts_from_there_on_are_trained(model, until, parts):
    kp.freeze(model, until, bn="trained")
    changed = fitted(model)
    assert {name.split("_")[0].split("/")[0] for name in changed} == parts
    if until != "predictions":
        assert any("moving_mean" in name for name in changed)


def test_frozen_batch_norm_stays_as_it_is_in_the_trained_part_too(model):
    trained = kp.freeze(model, "stage2")
    changed = fitted(model)
    assert changed and not any("bn" in name for name in changed)
    assert {name.split("/")[0] for name in changed} == set(trained)


def test_unfreezing_leaves_batch_norm_frozen_unless_asked(model):
    kp.freeze(model)
    kp.unfreeze(model)
    changed = fitted(model)
    assert "stem_conv/kernel" in changed and not any("bn" in name for name in changed)
    kp.unfreeze(model, bn="trained")
    assert {"stem_bn/moving_mean", "stem_bn/gamma"} <= fitted(model)


def test_unknown_parts_are_refused(model):
    with pytest.raises(ValueError, match="'stem', 'stage1', 'stage2', 'stage3', 'closing', 'predictions'. Received: '"):
        kp.freeze(model, "stage9")
    with pytest.raises(ValueError, match="`bn` must be one of 'frozen', 'trained'. Received: True"):
        kp.freeze(model, bn=True)
