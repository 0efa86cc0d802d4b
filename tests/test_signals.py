"""Signals at initialisation, forward and backward, as Eqns. 4, 5, 7 and 8 of the paper have them."""
import re

import keras
import numpy as np
import pytest
from helpers import images_like, randomize, relative_error

from keras_preact import cli
from keras_preact.networks import units
from keras_preact.networks.building import ResNet
from keras_preact.networks.config import NetworkConfig
from keras_preact.paper import signals as measuring

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="takes gradients with TensorFlow")

N = 16
IMAGES = images_like((8, 8, 3), 8)
JOINS = {"plain": 1.0, ("scaled", 0.5, 0.5): 0.5, ("scaled", 0.5, 1): 0.5}


def deep(join="plain", order="full_preactivation", **changes):
    keras.utils.set_random_seed(0)
    config = NetworkConfig((N,), (8,), order=order, join=join, **changes)
    return ResNet(config, input_shape=(8, 8, 3), classifier_activation=None)


def signals(model, training=True):
    """Outputs of the stem and of all units, what each unit adds to its shortcut, and the loss's gradients."""
    adds = [model.get_layer(f"stage1_unit{i}_add") for i in range(1, N + 1)]
    after = [layer for layer in model.layers if layer.name.endswith("_out_relu")] or adds
    tensors = [layer.output for layer in after], [add.input[1] for add in adds]
    labels = np.arange(8)
    with tf.GradientTape() as tape:
        features, branches, logits = keras.Model(model.input, [*tensors, model.output])(
            IMAGES, training=training
        )
        loss = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))
    return [[t.numpy() for t in part] for part in (features, branches, tape.gradient(loss, features))]


def norms(arrays):
    return np.array([np.linalg.norm(array) for array in arrays])


@pytest.fixture
def only_shortcuts(monkeypatch):
    """Lets gradients pass shortcuts alone; the branches and the gates still act."""
    add, gate, stop = units._add, units._gate, keras.ops.stop_gradient
    monkeypatch.setattr(units, "_add", lambda shortcut, branch, unit: add(shortcut, stop(branch), unit))
    monkeypatch.setattr(units, "_gate", lambda *args: [stop(part) for part in gate(*args)])


@pytest.mark.parametrize("join, scale", JOINS.items(), ids=map(str, JOINS))
def test_a_feature_is_a_shallower_one_scaled_plus_the_branches_between(join, scale):
    """Eqns. 4 and 7."""
    model = deep(join)
    randomize(model, seed=0)
    features, branches, _ = signals(model)
    for shallow in (0, 5, N - 2):
        total = features[shallow] * scale ** (N - 1 - shallow)
        for i in range(shallow + 1, N):
            total = total + branches[i] * scale ** (N - 1 - i)
        assert relative_error(total, features[-1]) < 1e-5


@pytest.mark.parametrize("order", ["original", "bn_after_addition"])
def test_an_activation_after_the_addition_breaks_the_sum(order):
    features, branches, _ = signals(deep(order=order))
    assert relative_error(features[0] + sum(branches[1:]), features[-1]) > 0.1


@pytest.mark.parametrize("join, scale", JOINS.items(), ids=map(str, JOINS))
def test_the_gradient_through_shortcuts_is_the_product_of_their_scales(join, scale, only_shortcuts):
    """The first terms of Eqns. 5 and 8."""
    _, _, gradients = signals(deep(join))
    for i, gradient in enumerate(gradients):
        np.testing.assert_array_equal(gradient, gradients[-1] * np.float32(scale ** (N - 1 - i)))
    assert norms(gradients)[0] > 0


@pytest.mark.parametrize("name", ["shortcut_gate", "exclusive_gate"])
@pytest.mark.parametrize("bias, low, high", [(0, 0, 1e-3), (-3, 0.01, 0.9), (-10, 0.5, 1)])
def test_the_gradient_through_gated_shortcuts_is_the_product_of_the_gates(name, bias, low, high, only_shortcuts):
    model = deep((name, bias))
    gates = keras.Model(model.input, [model.get_layer(f"stage1_unit{i}_shortcut_gate").output for i in range(2, N + 1)])
    product = np.prod([gate.numpy() for gate in gates(IMAGES, training=True)], axis=0)
    _, _, gradients = signals(model)
    assert relative_error(gradients[0], gradients[-1] * product) < 1e-5
    assert low < norms(gradients)[0] / norms(gradients)[-1] < high


def first_to_last(model, training=True):
    """How many times larger the gradient is at the stage's first unit than at its last."""
    gradients = norms(signals(model, training)[2])
    return gradients[0] / gradients[-1]


@pytest.mark.parametrize("join, scale", [
    *JOINS.items(), (("shortcut_gate", 0), 0.5), (("exclusive_gate", 0), 0.5), (("shortcut_gate", -10), 1),
], ids=str)
def test_the_gradient_of_weak_branches_vanishes_with_the_scales(join, scale):
    model = deep(join)
    for layer in model.layers:
        if layer.name.endswith("_gate_conv"):
            layer.kernel.assign(layer.kernel * 0)
        elif layer.name.endswith("_conv2"):
            layer.kernel.assign(layer.kernel * 0.02)
    predicted = scale ** (N - 1)
    assert 0.8 * predicted < first_to_last(model, training=False) < 2 * predicted


@pytest.mark.parametrize("join, low, high", [("plain", 0.01, 1), (("scaled", 0.5, 1), 0, 1e-6)], ids=str)
def test_scaled_shortcuts_force_the_gradient_through_the_weight_layers(join, low, high, request):
    """With batch statistics it does not vanish, but what is left of it has not come by the shortcuts."""
    total = first_to_last(deep(join))
    request.getfixturevalue("only_shortcuts")
    assert low < first_to_last(deep(join)) / total < high
    assert total > 1


@pytest.mark.parametrize("bias", [0, -6])
def test_initial_weights(bias):
    config = NetworkConfig((1, 1), (64, 128), order="original", shortcut="project_on_change",
                           join=("shortcut_gate", bias))
    for layer in ResNet(config, input_shape=(8, 8, 3)).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            assert (gamma == 1).all() and (beta == 0).all() and (mean == 0).all() and (variance == 1).all()
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
        elif isinstance(layer, keras.layers.Conv2D):
            kernel, *biases = layer.get_weights()
            height, width, _, filters = kernel.shape
            assert kernel.std() == pytest.approx(np.sqrt(2 / (height * width * filters)), rel=0.05)
            assert abs(kernel).max() > 3 * kernel.std()  # not truncated at two standard deviations
            assert len(biases) == layer.name.endswith("gate_conv") and all((b == bias).all() for b in biases)


@pytest.mark.parametrize("rate", [0.5, 0.25])
def test_dropout_drops_single_values_of_the_shortcut_while_training(rate):
    model = deep(("dropout", rate))
    stem, dropped = keras.Model(model.input, [model.get_layer("stem_relu").output,
                                              model.get_layer("stage1_unit1_add").input[0]])(IMAGES, training=True)
    stem, dropped = stem.numpy(), dropped.numpy()
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], stem[kept] / (1 - rate), rtol=1e-6)
    assert kept[stem != 0].mean() == pytest.approx(1 - rate, abs=0.05)
    lost = (stem != 0) & ~kept
    assert (lost.any(axis=(1, 2)) & kept.any(axis=(1, 2))).mean() > 0.9  # not whole channels


def test_measured_signals_are_those_of_the_units():
    """Against the outputs and gradients that the tests above take, of the same images and weights."""
    config = NetworkConfig((3, 2), (4, 6), order="bn_after_addition")
    images, targets = images_like((8, 8, 3), 4), np.eye(10, dtype="float32")[:4]
    model = ResNet(config, input_shape=(8, 8, 3), classifier_activation=None)
    randomize(model, seed=2)
    found = measuring._signals(model, config, images, targets)
    ends = [layer.output for layer in model.layers if layer.name.endswith("_out_relu")]
    with tf.GradientTape() as tape:
        *units, logits = keras.Model(model.input, [*ends, model.output])(images, training=True)
        loss = -tf.reduce_mean(tf.reduce_sum(targets * tf.nn.log_softmax(logits), 1))
    gradients = tape.gradient(loss, units)
    for values, tensors in zip(found, (units, gradients)):
        expected = [float(tf.norm(t)) / np.sqrt(t.numpy().size) for t in tensors]
        np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert len(found.forward) == 5


@pytest.mark.slow
def test_signals_of_every_shortcut_and_order_are_drawn(tmp_path, monkeypatch):
    x = np.random.default_rng(0).integers(0, 256, (128, 32, 32, 3)).astype("uint8")
    data = {"x_train": x, "y_train": np.arange(128) % 10, "x_test": x[:1], "y_test": np.arange(1)}
    monkeypatch.setattr(measuring, "PANELS", {name: dict([*of.items()][:2]) for name, of in measuring.PANELS.items()})
    found = measuring.plot(tmp_path / "signals.png", 8, data, steps=2)
    assert len(found) == 4 and all(len(values) == 3 and (values > 0).all() for s in found.values() for values in s)
    assert (tmp_path / "signals.png").read_bytes().startswith(b"\x89PNG")
    before = measuring.measure(NetworkConfig.cifar(8, order="original"), data).forward
    assert relative_error(found["shortcuts", "identity"].forward, before) > 1e-5  # it was trained
    with pytest.raises(ValueError, match="`steps` of training need `data`"):
        measuring.measure(NetworkConfig.cifar(8), steps=1)


def test_the_command_tells_gradients_that_overflow(monkeypatch, capsys):
    found = {("shortcuts", "1x1 conv"): measuring.Signals(np.array([1.0, 2.5]), np.array([np.nan, 3e-5]))}
    monkeypatch.setattr(measuring, "plot", lambda *args: found)
    monkeypatch.setenv("COLUMNS", "120")
    assert cli.main(["signals", "--output", "figure.png"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"1x1 conv +1 to 2.5 +beyond float32 to 3e-05", out) and "See figure.png" in out
