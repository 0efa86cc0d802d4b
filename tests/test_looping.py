"""Networks whose units run as one loop: what plain ones compute, and the same files."""
import json
from types import SimpleNamespace

import helpers
import keras
import numpy as np
import pytest
from helpers import killed

import keras_preact as kp
from keras_preact.networks.architectures import CONFIGS
from keras_preact.networks.config import ORDERS, NetworkConfig
from keras_preact.training import engine as training
from keras_preact.training.engine import Engine
from keras_preact.training.recipes import Recipe
from keras_preact.training.runs import read_log

RECIPE = Recipe(
    "tiny", "a test", epochs=3, batch_size=4, schedule="cosine", learning_rate=0.02, nesterov=True, weight_decay=0.01,
    decay="kernels", padding=1,
)
NETWORKS = {order: NetworkConfig((3,), (4,), order=order) for order in ORDERS} | {
    "deep": NetworkConfig((10, 3), (4, 6), unit="single"),  # nine alike: blocks of two, and one more
    "bottleneck": NetworkConfig((3, 3), (2, 3), unit="bottleneck", shortcut="project_on_change", use_bias=True),
    "projections": NetworkConfig((3,), (4,), order="original", shortcut="project_always"),
    "scaled": NetworkConfig((3,), (4,), join=("scaled", 0.5, 0.7)),
    "exclusive gate": NetworkConfig((3,), (4,), order="original", join=("exclusive_gate", -1)),
    "shortcut gate": NetworkConfig((3,), (4,), join=("shortcut_gate", -1)),
    "dropout": NetworkConfig((3,), (4,), join=("dropout", 0.5)),
    "strides on last units": NetworkConfig((4, 3), (4, 6), stride_on="last_unit", first_activation="unit"),
}


@pytest.fixture(autouse=True)
def float64(monkeypatch):
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    if keras.backend.backend() == "jax":
        import jax

        # Keras would normalize and take means in float32.
        for module in keras.src.backend, keras.src.backend.common.dtypes:
            monkeypatch.setattr(
                module, "result_type",
                lambda *types, before=module.result_type: "float64" if "float64" in types else before(*types),
            )
        jax.config.update("jax_enable_x64", True)
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


def network(config, **engine):
    keras.utils.set_random_seed(5)
    data = SimpleNamespace(image_shape=(8, 8, 3), labels=range(4), train_images=100)
    return training.compiled(config, data, RECIPE, 0.02, Engine(precision="float64", **engine))


def fit(model, steps=3):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4 * steps, 8, 8, 3)), np.eye(4)[rng.integers(0, 4, 4 * steps)]
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    return model


def values(model):
    """Weights, statistics, the state of dropout and that of the optimizer, of the plain form."""
    plain = training.unrolled(model)
    return [keras.ops.convert_to_numpy(v) for v in (*plain.variables, *plain.optimizer.variables)]


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * max(1, np.abs(b).max()))


QUICK = ("full_preactivation", False), ("dropout", False)
CASES = [*((name, False) for name in NETWORKS), ("deep", True), ("bottleneck", True)]


@pytest.mark.parametrize(
    "name, rematerialize",
    [case if case in QUICK else helpers.slow(*case) for case in CASES],
)
def test_steps_leave_the_same_values_and_outputs(name, rematerialize):
    config = NETWORKS[name]
    plain, other = network(config, loop=False), network(config, loop=True, rematerialize=rematerialize)
    before = values(plain)
    assert_same(values(other), before)
    fit(plain)
    fit(other)
    for variable, a, b in zip(plain.variables, before, values(plain)):
        # The bias of a conv before a batch normalization has no gradient.
        assert np.abs(a - b).max() > 1e-12 or variable.name == "bias", variable.path
    assert_same(values(other), values(plain))
    images = np.random.default_rng(1).normal(size=(3, 8, 8, 3))
    assert_same([other.predict(images, verbose=0)], [plain.predict(images, verbose=0)])
    assert len(other.trainable_variables) < len(plain.trainable_variables)


@pytest.mark.parametrize("first", [False, True])
def test_files_are_those_of_the_plain_network(first, tmp_path):
    config = NETWORKS["full_preactivation"]
    writer, reader = fit(network(config, loop=first)), network(config, loop=not first)
    writer.save_weights(tmp_path / "x.weights.h5")
    reader.load_weights(tmp_path / "x.weights.h5")
    assert_same(values(reader), values(writer))
    assert_same(values(fit(reader)), values(fit(writer)))


@pytest.mark.slow
@pytest.mark.parametrize("first", [False, True])
def test_a_run_goes_on_in_the_other_form(first, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, 8, 8, 3)).astype("uint8"), np.arange(20) % 4
    data = {"x_train": x[:12], "y_train": y[:12], "x_test": x[12:], "y_test": y[12:]}

    def run(folder, loop):
        config, engine = NETWORKS["full_preactivation"], Engine(precision="float64", loop=loop)
        training.train(config, data, RECIPE, tmp_path / folder, engine=engine, verbose=0)
        return read_log(tmp_path / folder / "log.csv"), kp.load_run(tmp_path / folder)[0].get_weights()

    log, weights = run("whole", first)
    with killed(1):
        run("resumed", first)
    # Runs that were started before there was the choice say nothing of it.
    path = tmp_path / "resumed" / "run.json"
    before = json.loads(path.read_text())
    assert before["engine"].pop("loop") is first
    path.write_text(json.dumps(before))
    resumed_log, resumed = run("resumed", not first)
    assert [row["loss"] for row in log] == [row["loss"] for row in resumed_log]
    assert_same(resumed, weights)


def test_a_loop_is_refused_where_there_is_none(monkeypatch):
    with pytest.raises(ValueError, match="loop=True .*strategy 'none' or 'jax'.* Received: .*'mirrored'"):
        Engine("mirrored", loop=True)
    with pytest.raises(ValueError, match="`loop` must be one of True, False, 'auto'. Received: 'always'"):
        Engine(loop="always")
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match="loop=True .*Received: .*'torch'"):
        Engine(loop=True)


def test_by_itself_the_engine_loops_where_that_was_measured_to_win(monkeypatch):
    shallow, deep, deepest = (CONFIGS[name] for name in ("PreActResNet56", "PreActResNet110", "PreActResNet1001"))
    on_tensorflow = keras.backend.backend() == "tensorflow"
    assert [Engine().loops(config) for config in (shallow, deep, deepest)] == [False, on_tensorflow, True]
    monkeypatch.setattr(training, "_devices", lambda: ["cpu:0", "gpu:0"])
    # XLA compiles on TensorFlow where there is a GPU.
    assert Engine().loops(deep) != on_tensorflow and not Engine().loops(shallow)
    assert Engine(jit_compile=False).loops(deep)
    assert Engine(jit_compile=True).loops(deepest) != on_tensorflow
    assert not Engine("mirrored").loops(deepest) and not Engine(loop=False).loops(deepest)
    assert Engine(loop=True).loops(shallow)
    assert not Engine(loop=True, rematerialize=True).loops(NETWORKS["dropout"])
