"""Freezing, what is trained and what stays as it is, to the bit; and the statistics of batch normalization."""
import helpers
import keras
import numpy as np
import pytest

import keras_preact as kp
from keras_preact.networks.building import ResNet
from keras_preact.networks.config import NetworkConfig


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


def moments(images, kernel):
    """Returns mean and variance of each channel of a 3x3 conv, padded with zeros, over all images and places."""
    padded = np.pad(images.astype("float64"), ((0, 0), (1, 1), (1, 1), (0, 0)))
    n, height, width, _ = images.shape
    y = sum(
        padded[:, i:i + height, j:j + width] @ kernel[i, j].astype("float64") for i in range(3) for j in range(3)
    ).reshape(n * height * width, -1)
    return y.mean(0), y.var(0)


def test_recalibrated_statistics_are_those_of_all_images(model):
    images = np.random.default_rng(1).normal(1, 2, (7, 8, 8, 3)).astype("float32")
    kernel = keras.ops.convert_to_numpy(model.get_layer("stem_conv").kernel)
    norm = model.get_layer("stem_bn")
    kp.recalibrate(model, images, batch_size=3)
    for statistic, expected in zip((norm.moving_mean, norm.moving_variance), moments(images, kernel), strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(statistic), expected, rtol=1e-4, atol=1e-5)
    one = helpers.weights_of(model)
    kp.recalibrate(model, iter([images[:3], images[3:6], images[6:]]))
    for name, value in helpers.weights_of(model).items():
        np.testing.assert_array_equal(value, one[name], name)


def test_with_the_statistics_of_one_batch_it_is_predicted_as_it_was_trained(model):
    images = np.random.default_rng(2).normal(1, 2, (8, 8, 8, 3)).astype("float32")
    trained, before = model(images, training=True), helpers.weights_of(model)
    kp.recalibrate(model, images)
    np.testing.assert_allclose(model.predict_on_batch(images), keras.ops.convert_to_numpy(trained), atol=1e-5)
    after = helpers.weights_of(model)
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {
        name for name in before if "moving" in name
    }


def test_only_batch_norm_that_is_not_frozen_is_recalibrated(model):
    images = np.random.default_rng(3).normal(1, 2, (8, 8, 8, 3)).astype("float32")
    kp.freeze(model, "stage3", bn="trained")
    before = helpers.weights_of(model)
    kp.recalibrate(model, images)
    after = helpers.weights_of(model)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {name.split("_")[0] for name in changed} == {"stage3", "closing"}
    with pytest.raises(ValueError, match="at least one image"):
        kp.recalibrate(model, images[:0])
    kp.freeze(model)
    with pytest.raises(ValueError, match=r"has none: call unfreeze\(model, bn='trained'\)"):
        kp.recalibrate(model, images)
