"""Training that computes activations anew: the same numbers, each conv twice in the graph."""
import keras
import numpy as np
import pytest
from helpers import build, images_like

from keras_preact.networks.config import NetworkConfig
from keras_preact.training.engine import Engine, train
from keras_preact.training.forms import rematerialization
from keras_preact.training.forms.rematerialization import Rematerialized
from keras_preact.training.recipes import Recipe

CONFIGS = {
    "pre-activation": NetworkConfig((3, 2, 2), (4, 6, 8)),
    "original, gates": NetworkConfig((3, 2), (4, 8), order="original", join=("exclusive_gate", -2)),
    "bottleneck": NetworkConfig((2, 3), (4, 6), unit="bottleneck", shortcut="project_on_change"),
    "no shortcut": NetworkConfig((2, 2), (4, 4), join=("scaled", 0, 1)),
}


def both(config, shape=(8, 8, 3)):
    plain = build(config, shape)
    copy = build(config, shape)
    return plain, Rematerialized(copy.inputs, copy.outputs)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_steps_leave_the_same_weights_and_statistics(config):
    networks = both(config)
    images, targets = images_like((8, 8, 3), 6), np.eye(5, dtype="float32")[[0, 1, 2, 3, 4, 0]]
    for network in networks:
        before = network.get_weights()
        network.compile(keras.optimizers.SGD(0.01), keras.losses.CategoricalCrossentropy(from_logits=True))
        network.train_on_batch(images, targets)
        network.train_on_batch(images, targets)
    plain, other = networks
    assert [layer.name for layer in plain.layers[1:]] == [layer.name for layer in other.layers[1:]]
    for a, b, start in zip(plain.get_weights(), other.get_weights(), before, strict=True):
        assert np.abs(a - start).max() > 0
        np.testing.assert_allclose(a, b, atol=2e-6 * max(1, np.abs(a).max()))
    np.testing.assert_allclose(plain.predict(images, verbose=0), other.predict(images, verbose=0), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="looks into TensorFlow's graph")
def test_each_conv_of_the_units_is_computed_twice():
    import tensorflow as tf

    def convs(network):
        @tf.function
        def gradients(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(network(images, training=True) ** 2)
            return tape.gradient(loss, [v.value for v in network.trainable_variables])

        graph = gradients.get_concrete_function(tf.zeros((2, 8, 8, 3))).graph
        return sum(op.type == "Conv2D" for op in graph.get_operations())

    plain, other = both(CONFIGS["pre-activation"])
    assert (convs(plain), convs(other)) == (15, 30)


def test_dropout_drops_the_same_when_it_is_computed_again():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("takes a gradient by TensorFlow's tape")
    import tensorflow as tf

    inputs = keras.Input((1000,))
    block = keras.Model(inputs, keras.layers.Dropout(0.3)(inputs))

    @tf.function
    def outputs_and_gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            first = rematerialization._rematerialize(block, x)
            second = rematerialization._rematerialize(block, first)
        return first, second, tape.gradient(second, x)

    for _ in range(3):
        first, second, gradient = outputs_and_gradient(tf.ones((1, 1000)))
        # Of ones through two dropouts the output is the gradient; the two do not drop the same.
        np.testing.assert_array_equal(second, gradient)
        assert 0.4 < (second.numpy() == 0).mean() < 0.6 and 0.2 < (first.numpy() == 0).mean() < 0.4


@pytest.mark.slow
def test_a_run_ends_as_one_without(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 8, 8, 3)).astype("uint8"), np.arange(40) % 4
    data = {"x_train": x[:32], "y_train": y[:32], "x_test": x[32:], "y_test": y[32:]}
    recipe = Recipe("tiny", "a test", epochs=2, batch_size=16, schedule="cosine", learning_rate=0.01, padding=1)
    logs = [
        train(
            CONFIGS["pre-activation"], data, recipe, tmp_path / str(on), engine=Engine(rematerialize=on),
            verbose=0,
        ) for on in (False, True)
    ]
    for row, other in zip(*logs, strict=True):
        assert float(row["loss"]) == pytest.approx(float(other["loss"]), abs=2e-5)
