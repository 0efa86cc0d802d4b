"""Stochastic depth: which units stay, what is computed without one, and that files are the plain network's."""
import dataclasses

import keras
import numpy as np
import pytest
from helpers import build, images_like, killed

import keras_preact as kp
from keras_preact.networks.config import NetworkConfig
from keras_preact.training.engine import Engine, train
from keras_preact.training.forms import stochastic_depth
from keras_preact.training.forms.stochastic_depth import Stochastic, survival
from keras_preact.training.recipes import Recipe
from keras_preact.training.runs import read_log

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="on TensorFlow alone")
RECIPE = Recipe("tiny", "a test", epochs=2, batch_size=16, padding=1, survival=0.5)
CONFIGS = {
    "pre-activation": NetworkConfig((2, 1, 1), (4, 6, 8)),
    "original, projections": NetworkConfig((1, 2), (4, 8), order="original", shortcut="project_on_change"),
    "pre-activation in unit 1": NetworkConfig((2, 1), (4, 6), first_activation="unit", shortcut="project_on_change"),
}


def test_units_survive_by_the_linear_rule():
    """Huang et al., Eqn. 4: p_l = 1 - l/L (1 - p_L); of 54 units with p_L = 0.5 about 40 stay on average."""
    assert survival(4, 0.5) == [0.875, 0.75, 0.625, 0.5]
    assert sum(survival(54, 0.5)) == pytest.approx(40.25)
    assert survival(3, 1.0) == [1, 1, 1]


def networks(config, monkeypatch, stays):
    """The plain network and one that trains without the units where `stays` is 0."""
    plain, copy = build(config, (8, 8, 3)), build(config, (8, 8, 3))
    network = Stochastic(copy.inputs, copy.outputs, last=0.5)
    monkeypatch.setattr(network, "_draws", lambda count: [keras.ops.convert_to_tensor(1.0 - s) for s in stays])
    return plain, network


def without(plain, stays):
    """The plain network, whose additions take what `stays` leaves of each branch."""
    chances = survival(len(stays), 0.5)
    factors = {}
    for layer in plain.layers:
        if layer.name.endswith("_add"):
            factors[layer.name] = stays[len(factors)] / chances[len(factors)]

    def call(layer):
        def scaled(pair, *args, **kwargs):
            return pair[0] + factors[layer.name] * pair[1]
        return scaled

    for layer in plain.layers:
        if layer.name in factors:
            layer.call = call(layer)
    return plain


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("out", [None, 0, 1, 2])
def test_a_unit_that_is_left_out_is_its_shortcut(config, out, monkeypatch):
    units = sum(config.units)
    stays = [0 if i == out else 1 for i in range(units)]
    plain, other = networks(config, monkeypatch, stays)
    images = images_like((8, 8, 3), 6)
    before = {v.path: np.array(v) for v in other.variables}
    found, expected = other(images, training=True), without(plain, stays)(images, training=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    units = [layer.name.removesuffix("_add") for layer in other.layers if layer.name.endswith("_add")]
    still = {
        layer.name for layer in other.layers if isinstance(layer, keras.layers.BatchNormalization)
        if (np.array(layer.moving_mean) == before[layer.moving_mean.path]).all()
    }
    assert bool(still) == (out is not None) and all(name.startswith(units[out]) for name in still)


def test_on_average_it_is_the_plain_unit(monkeypatch):
    """One unit with p = 0.5: h(x) and h(x) + 2 F(x), as often, are h(x) + F(x) on average; half the steps have it."""
    config = NetworkConfig((1,), (4,))
    images = images_like((8, 8, 3), 6)
    (plain, kept), (_, left) = (networks(config, monkeypatch, stays) for stays in ([1], [0]))
    cut = keras.Model(plain.inputs[0], plain.get_layer("stage1_unit1_add").output)

    def at_add(network):
        seen = {}
        closing = network.get_layer("closing_bn")
        call = closing.call
        closing.call = lambda x, *args, **kwargs: seen.setdefault("x", x) is None or call(x, *args, **kwargs)
        network(images, training=True)
        return np.array(seen["x"])

    mean = (at_add(kept) + at_add(left)) / 2
    np.testing.assert_allclose(mean, cut(images, training=True), rtol=1e-4, atol=1e-4)
    network = Stochastic(plain.inputs, plain.outputs, last=0.5, seed=3)
    network.compile(keras.optimizers.SGD(0.1))
    stayed = []
    for step in range(400):
        network.optimizer.iterations.assign(step)
        stayed.append([bool(draw < chance) for draw, chance in zip(network._draws(4), survival(4, 0.5))])
    # Four standard deviations of a mean of 400.
    for share, chance in zip(np.mean(stayed, 0), survival(4, 0.5)):
        assert abs(share - chance) < 4 * (chance * (1 - chance) / 400) ** 0.5


def test_a_unit_that_is_left_out_is_not_computed(monkeypatch):
    """Convs that run: the stem's and two of each unit that stays."""
    import tensorflow as tf

    ran = []
    for stays in ([1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]):
        _, network = networks(CONFIGS["pre-activation"], monkeypatch, stays)
        count = tf.Variable(0)
        for layer in network.layers:
            if isinstance(layer, keras.layers.Conv2D):
                def counted(x, *args, call=layer.call, count=count, **kwargs):
                    count.assign_add(1)
                    return call(x, *args, **kwargs)

                layer.call = counted
        draws = tf.Variable([1.0 - s for s in stays])
        monkeypatch.setattr(type(network), "_draws", lambda self, n, draws=draws: tf.unstack(draws.read_value()))
        tf.function(lambda x, network=network: network(x, training=True))(tf.constant(images_like((8, 8, 3), 2)))
        ran.append(int(count))
    assert ran == [9, 5, 1]


@pytest.mark.slow
def test_training_goes_on_to_the_bit_and_leaves_a_plain_network(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (80, 8, 8, 3)).astype("uint8"), np.arange(80) % 4
    data = {"x_train": x[:64], "y_train": y[:64], "x_test": x[64:], "y_test": y[64:]}
    config = CONFIGS["pre-activation"]

    train(config, data, RECIPE, tmp_path / "whole", verbose=0)
    with killed(1):
        train(config, data, RECIPE, tmp_path / "cut", verbose=0)
    train(config, data, RECIPE, tmp_path / "cut", verbose=0)
    whole, cut = (kp.load_run(tmp_path / name)[0] for name in ("whole", "cut"))
    for a, b in zip(whole.get_weights(), cut.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    report, last = kp.evaluate(whole, data, verbose=0), read_log(tmp_path / "whole" / "log.csv")[-1]
    assert last["test_error"] == f"{report.top1_error:.2f}"
    train(config, data, dataclasses.replace(RECIPE, survival=1.0), tmp_path / "plain", verbose=0)
    assert any((a != b).any() for a, b in zip(whole.get_weights(), kp.load_run(tmp_path / "plain")[0].get_weights()))


@pytest.mark.parametrize("engine", [{"loop": True}, {"rematerialize": True}])
def test_forms_that_do_not_go_together_are_refused(engine, tmp_path):
    with pytest.raises(ValueError, match="[Ss]tochastic depth.* leave out"):
        train(CONFIGS["pre-activation"], {}, RECIPE, tmp_path / "run", engine=Engine(**engine))


def test_joins_without_a_plain_addition_are_refused(tmp_path):
    config = NetworkConfig((1, 1), (4, 6), join=("exclusive_gate", -6))
    with pytest.raises(ValueError, match="Stochastic depth .*'plain'. Received: 'exclusive_gate'"):
        train(config, {}, RECIPE, tmp_path / "run")


def test_other_backends_are_refused(monkeypatch):
    monkeypatch.setattr(stochastic_depth.keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow.*Received: the backend 'jax'"):
        Stochastic(last=0.5)
