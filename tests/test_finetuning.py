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


def inside(model, kind):
    """`model` without its head inside another one, with a head named "head"."""
    base = keras.Model(model.input, model.get_layer("avg_pool").output, name="base")
    head = keras.layers.Dense(3, "softmax", name="head")
    if kind == "sequential":
        return keras.Sequential([keras.Input((8, 8, 3)), base, head])
    inputs = keras.Input((8, 8, 3))
    if kind == "deep":
        base = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1.0), base])
    return keras.Model(inputs, head(base(inputs, training=False) if kind == "inference" else base(inputs)))


def weights(model):
    """{layer/weight: value} of the network and the head inside `model`."""
    return {"/".join(v.path.split("/")[-2:]): keras.ops.convert_to_numpy(v) for v in model.weights}


def changed_by_training(model):
    before = weights(model)
    fitted(model)
    return {name for name, value in weights(model).items() if not np.array_equal(before[name], value)}


@pytest.mark.parametrize("kind", ["sequential", "functional", "deep"])
def test_networks_inside_others_are_frozen_and_trained(model, kind):
    whole = inside(model, kind)
    assert kp.freeze(whole, "head") == ["head"]
    assert changed_by_training(whole) == {"head/kernel", "head/bias"}
    trained = kp.freeze(whole, "stage3")
    assert {name.split("_")[0] for name in trained} == {"stage3", "head"} and not any("bn" in name for name in trained)
    assert {name.split("/")[0] for name in changed_by_training(whole)} == set(trained)
    whole.trainable = False  # as users freeze a base
    kp.unfreeze(whole, bn="trained")
    assert {name.split("_")[0].split("/")[0] for name in changed_by_training(whole)} == {
        "stem", "stage1", "stage2", "stage3", "closing", "head"
    }
    with pytest.raises(ValueError, match="'stem', 'stage1', 'stage2', 'stage3', 'closing', 'head'. Received: 'predic"):
        kp.freeze(whole)


def test_batch_norm_inside_a_layer_of_ones_own_is_frozen():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="block")
            self.conv, self.bn = keras.layers.Conv2D(2, 1), keras.layers.BatchNormalization()

        def call(self, x, training=None):
            return self.bn(self.conv(x), training=training)

    whole = keras.Sequential([keras.Input((8, 8, 3)), Block(), keras.layers.GlobalAveragePooling2D(),
                              keras.layers.Dense(3, "softmax", name="head")])
    assert kp.freeze(whole, "block") == ["block", "head"]
    assert not whole.layers[0].bn.trainable_weights and len(whole.layers[0].trainable_weights) == 2


@pytest.mark.parametrize("kind", ["sequential", "functional", "deep", "inference"])
def test_networks_inside_others_are_recalibrated(model, kind):
    images = np.random.default_rng(1).normal(1, 2, (7, 8, 8, 3)).astype("float32")
    norm, kernel = model.get_layer("stem_bn"), keras.ops.convert_to_numpy(model.get_layer("stem_conv").kernel)
    whole = inside(model, kind)
    before = weights(whole)
    kp.recalibrate(whole, images, batch_size=3)
    for statistic, expected in zip((norm.moving_mean, norm.moving_variance), moments(images, kernel), strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(statistic), expected, rtol=1e-4, atol=1e-5)
    for name, value in weights(whole).items():
        assert np.array_equal(value, before[name]) != ("moving" in name), name


def test_a_layer_that_is_used_twice_has_the_statistics_of_both_uses():
    inputs = keras.Input((1, 1, 1))
    norm = keras.layers.BatchNormalization()
    model = keras.Model(inputs, keras.layers.Add()([norm(inputs), norm(keras.layers.Rescaling(1, 10)(inputs))]))
    kp.recalibrate(model, np.float32([1, 3]).reshape(2, 1, 1, 1))
    # Of 1, 3, 11 and 13: mean 7, variance 26.
    assert float(norm.moving_mean[0]) == pytest.approx(7, rel=1e-5)
    assert float(norm.moving_variance[0]) == pytest.approx(26, rel=1e-5)


class Batches(keras.utils.PyDataset):
    def __init__(self, images):
        super().__init__()
        self.images = images

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return self.images[4 * i:4 * i + 4], np.zeros(len(self.images[4 * i:4 * i + 4]))


def test_images_come_as_fit_takes_them(model):
    images = np.random.default_rng(1).normal(1, 2, (7, 8, 8, 3)).astype("float32")
    labels = np.zeros(7)
    kernel, norm = keras.ops.convert_to_numpy(model.get_layer("stem_conv").kernel), model.get_layer("stem_bn")
    for given in (
        [(images[:4], labels[:4]), (images[4:], labels[4:])], [[images[:4], labels[:4]], [images[4:], labels[4:]]],
        [(images, labels, labels)], [(images,)], Batches(images),
    ):
        norm.moving_mean.assign(np.zeros(4))
        kp.recalibrate(model, given)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(norm.moving_mean), moments(images, kernel)[0], rtol=1e-4,
                                   atol=1e-5)
    before = helpers.weights_of(model)
    for wrong, received in (((images, labels), r"\(7,\)"), ([images[0]], r"\(8, 8, 3\)"), ([{"x": 1}], "dict")):
        with pytest.raises(ValueError, match=rf"\(images, 8, 8, 3\), alone or with labels. Received: {received}"):
            kp.recalibrate(model, wrong)
        assert all(np.array_equal(value, before[name]) for name, value in helpers.weights_of(model).items())
    with pytest.raises(ValueError, match="`images` must be an array, or batches as `fit` takes them. Received: int"):
        kp.recalibrate(model, 7)
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer. Received: 0"):
        kp.recalibrate(model, images, batch_size=0)


def test_a_model_without_weights_is_not_unfrozen():
    with pytest.raises(ValueError, match="`model` must have weights: build it first. Received: nothing"):
        kp.unfreeze(keras.Sequential([keras.Input((2,))], name="nothing"))


def test_a_tensorflow_data_set_is_taken_and_an_endless_one_refused(model):
    tf = pytest.importorskip("tensorflow")
    images = np.random.default_rng(1).normal(1, 2, (7, 8, 8, 3)).astype("float32")
    kernel, norm = keras.ops.convert_to_numpy(model.get_layer("stem_conv").kernel), model.get_layer("stem_bn")
    data = tf.data.Dataset.from_tensor_slices((images, np.zeros(7))).batch(4)
    with pytest.raises(ValueError, match=r"must end, and this data set repeats itself: give its .take\(batches\)"):
        kp.recalibrate(model, data.repeat())
    kp.recalibrate(model, data)
    expected = moments(images, kernel)[1]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(norm.moving_variance), expected, rtol=1e-4)
