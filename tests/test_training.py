"""Recipes, optimizer and engine, against values computed by hand."""
import dataclasses
import json
import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_preact as kp
from keras_preact.networks.config import NetworkConfig
from keras_preact.training import engine as training, recipes
from keras_preact.training.engine import SGD, Diverged, Engine, train
from keras_preact.training.recipes import RECIPES, Recipe
from keras_preact.training.runs import read_log

NETWORK = NetworkConfig((1, 1), (4, 6))
RECIPE = Recipe("tiny", "a test", epochs=3, batch_size=16, schedule="cosine", warmup_steps=4, padding=1, nesterov=True)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    # 20 steps an epoch, more than Keras makes ready.
    labels = rng.integers(0, 4, 362)
    images = rng.integers(0, 128, (362, 8, 8, 3)) + 32 * labels[:, None, None, None]
    images, labels = images.astype("uint8"), labels.astype("uint8")
    return {"x_train": images[:330], "y_train": labels[:330], "x_test": images[330:], "y_test": labels[330:]}


def rates(recipe, steps, at):
    schedule = recipe.learning_rates(steps)
    return [float(schedule(step)) for step in at]


def test_the_recipe_of_the_paper():
    """The appendix: 0.1, divided by 10 at 32k and 48k of 64k iterations, after 400 iterations at 0.01."""
    recipe = RECIPES["cifar_paper"]
    assert (recipe.batch_size, recipe.momentum, recipe.weight_decay, recipe.nesterov) == (128, 0.9, 1e-4, False)
    steps = 50_000 // 128
    assert abs(recipe.epochs * steps - 64_000) < steps
    drops = [round(recipe.epochs * steps * part) for part in (0.5, 0.75)]
    assert abs(drops[0] - 32_000) < 100 and abs(drops[1] - 48_000) < 100
    at = (0, 399, 400, drops[0] - 1, drops[0], drops[1] - 1, drops[1])
    np.testing.assert_allclose(rates(recipe, steps, at), [0.01, 0.01, 0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-6)


def test_the_recipe_of_the_torch_release():
    """fb.resnet.torch: the rate falls with the 81st and the 122nd epoch."""
    at = (0, 80 * 10 - 1, 80 * 10, 121 * 10 - 1, 121 * 10)
    np.testing.assert_allclose(rates(RECIPES["cifar_torch"], 10, at), [0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-6)


def test_a_cosine_rises_linearly_and_falls_to_zero():
    recipe = dataclasses.replace(RECIPE, epochs=3, warmup_steps=4, learning_rate=0.2)
    np.testing.assert_allclose(rates(recipe, 4, (0, 2, 4, 8, 12)), [0, 0.1, 0.2, 0.1, 0], atol=1e-7)


def test_recipes_are_frozen_and_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPE.epochs = 1
    with pytest.raises(ValueError, match="`recipe` must be one of 'cifar_paper'.*did you mean 'cifar_paper'"):
        recipes.find("cifar_papr")
    for change, pattern in (
        ({"schedule": "linear"}, "`schedule` must be one of 'steps', 'cosine'. Received: 'linear'"),
        ({"epochs": 0}, "`epochs` must be positive. Received: 0"),
        ({"schedule": "steps"}, "give `warmup_rate`"),
        ({"nesterov": "False"}, "`nesterov` must be of the type bool. Received: 'False'"),
        ({"learning_rate": ".1"}, "`learning_rate` must be of the type float. Received: '.1'"),
        ({"warmup_rate": "0.1"}, r"`warmup_rate` must be of the type float \| None. Received: '0.1'"),
        ({"drops": 0.5}, "`drops` must be of the type tuple. Received: 0.5"),
    ):
        with pytest.raises(ValueError, match=pattern):
            dataclasses.replace(RECIPE, **change)


@pytest.mark.parametrize("recipe, falls", [("cifar_paper", 164 * 4 // 2), ("cifar_short", 75 * 10)])
def test_a_warm_up_longer_than_the_run_is_refused(recipe, falls):
    with pytest.raises(ValueError, match=rf"less than the {falls} steps.*warmup_steps={falls // 10}\). Received: [47]"):
        RECIPES[recipe].learning_rates(4 if recipe == "cifar_paper" else 10)
    RECIPES[recipe].learning_rates(11)


def test_a_recipe_that_does_not_fit_leaves_no_folder(data, tmp_path):
    with pytest.raises(ValueError, match="`warmup_steps` must be less than the 60 steps .* 20 an epoch.*Received: 780"):
        train(NETWORK, data, dataclasses.replace(RECIPE, warmup_steps=780), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("decay", ["all", "kernels"])
def test_sgd_takes_the_coupled_l2_gradient(decay):
    rate, momentum, l2, gradients = 0.1, 0.9, 0.01, (1.0, -0.5, 0.25)
    variables = [keras.Variable([2.0], name="kernel"), keras.Variable([2.0], name="gamma")]
    optimizer = SGD(rate, momentum, nesterov=True, l2=l2, decay=decay)
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor([gradient])] * 2, variables)
    for variable, factor in zip(variables, (l2, l2 if decay == "all" else 0.0)):
        w, v = 2.0, 0.0
        for gradient in gradients:
            g = gradient + factor * w
            v = momentum * v - rate * g
            w += momentum * v - rate * g
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), w, rtol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a fault of TensorFlow's graphs")
def test_gradients_are_those_of_the_weights_before_the_step():
    """Without a barrier the gradient of the kernel took the gamma after the step, in a quarter of the runs."""
    x, upstream = np.random.default_rng(0).normal(size=(2, 6, 4, 5, 3)).astype("float32")
    kernels = []
    for eagerly in (True, *[False] * 9):
        conv = keras.layers.Conv2D(3, 1, use_bias=False, kernel_initializer=keras.initializers.RandomNormal(seed=1))
        model = keras.Sequential([keras.Input((4, 5, 3)), conv, keras.layers.BatchNormalization()])
        model.compile(SGD(1.0), lambda y, p: keras.ops.sum(y * p), jit_compile=False, run_eagerly=eagerly)
        model.train_on_batch(x, upstream)
        kernels.append(conv.get_weights()[0])
    for kernel in kernels[1:]:
        np.testing.assert_allclose(kernel, kernels[0], rtol=1e-3, atol=1e-2)


def test_the_l2_gradient_acts_in_fit():
    """With a loss of zero gradient the weights shrink by l2 alone: w (1 - rate * l2), twice."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(SGD(0.5, l2=0.1), lambda y, p: 0.0 * p, jit_compile=False)
    model.fit(np.ones((2, 2)), np.ones((2, 1)), batch_size=1, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], np.full((2, 1), 0.95**2), rtol=1e-6)


class Killed(BaseException):
    pass


def kill(monkeypatch, epoch, before_checkpoint):
    """Makes training die in an epoch's end: after the line of the log, and after the checkpoint or before it."""
    on_epoch_end = training._Epochs.on_epoch_end

    def stop(*_):
        raise Killed

    def die(self, e, logs=None):
        if e + 1 == epoch and before_checkpoint:
            self.model.save_weights = stop
        on_epoch_end(self, e, logs)
        if e + 1 == epoch:
            stop()

    monkeypatch.setattr(training._Epochs, "on_epoch_end", die)


def final(folder):
    log = [row | {"images_per_second": None} for row in read_log(folder / "log.csv")]
    return log, kp.load_run(folder)[0].get_weights()


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "whole"
    train(NETWORK, data, RECIPE, folder, seed=7, verbose=0)
    return folder


@pytest.mark.parametrize("before_checkpoint", [False, True])
def test_a_run_that_was_killed_ends_as_one_that_was_not(data, whole, tmp_path, before_checkpoint):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill(patch, 2, before_checkpoint)
        train(NETWORK, data, RECIPE, tmp_path, seed=7, verbose=0)
    assert len(read_log(tmp_path / "log.csv")) == 2
    train(NETWORK, data, RECIPE, tmp_path, seed=7, verbose=0)
    (log, weights), (resumed_log, resumed) = final(whole), final(tmp_path)
    assert log == resumed_log
    for a, b in zip(weights, resumed):
        np.testing.assert_array_equal(a, b)


def test_what_a_run_leaves_behind(data, whole):
    log = read_log(whole / "log.csv")
    assert [row["epoch"] for row in log] == ["1", "2", "3"]
    for row in log:
        assert re.fullmatch(r"\d+\.\d\d", row["test_error"]) and 0 <= float(row["test_error"]) <= 100
    assert float(log[-1]["loss"]) < float(log[0]["loss"])
    run = json.loads((whole / "run.json").read_text())
    assert run["seed"] == 7 and Recipe(**run["recipe"]) == RECIPE and NetworkConfig(**run["config"]) == NETWORK
    assert run["data"]["train_images"] == 330 and run["labels"] == ["0", "1", "2", "3"]
    assert run["environment"]["keras"] == keras.version()
    assert (whole / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert not list(whole.glob("new*"))
    model, _ = kp.load_run(whole)
    report = kp.evaluate(model, data)
    assert f"{report.top1_error:.2f}" == log[-1]["test_error"]


def test_a_finished_run_is_not_run_again(data, whole):
    before = (whole / "log.csv").read_bytes()
    train(NETWORK, data, RECIPE, whole, seed=7, verbose=0)
    assert (whole / "log.csv").read_bytes() == before


def test_another_run_is_not_written_over(data, whole):
    changed = dataclasses.replace(RECIPE, weight_decay=0.5)
    with pytest.raises(ValueError, match="recipe.weight_decay: 0.0001 before, 0.5 now"):
        train(NETWORK, data, changed, whole, seed=7)
    with pytest.raises(ValueError, match="\n  seed: 7 before, 8 now"):
        train(NETWORK, data, RECIPE, whole, seed=8)


def test_divergence_stops_with_the_last_good_checkpoint(data, tmp_path):
    wild = dataclasses.replace(RECIPE, learning_rate=1e30, warmup_steps=0)
    with pytest.raises(Diverged, match=r"loss is (nan|inf) by step \d+, at a learning rate of .*Lower the"):
        train(NETWORK, data, wild, tmp_path / "run", verbose=0)
    assert not (tmp_path / "run" / "final.weights.h5").exists()


def test_divergence_is_seen_where_several_steps_are_one_call(tmp_path):
    callback = training._StopOnDivergence(tmp_path, lambda step: 0.1)
    callback.set_params({"steps": 40})
    callback.on_epoch_begin(2)
    callback.on_train_batch_end(9, {"loss": 1.0})
    callback.on_train_batch_end(19, {"loss": float("nan")})  # looked at too lately
    with pytest.raises(Diverged, match="training loss is nan by step 109, at a learning rate of 0.1. There is no"):
        callback.on_train_batch_end(29, {"loss": float("nan")})


@pytest.mark.parametrize("change, pattern", [
    ({"model": "PreActResNet21"}, "'PreActResNet21'. Did you mean PreActResNet"),
    ({"recipe": "imagenet"}, "`recipe` must be one of 'cifar_paper'"),
    ({"recipe": dataclasses.replace(RECIPE, batch_size=400)}, "at most the 330 training images .*Received: 400"),
    ({"output": "/dev/null/run"}, "`output` must be a folder that can be written to"),
])
def test_bad_arguments_are_refused_before_anything_is_trained(change, pattern, data, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", None)
    arguments = {"model": NETWORK, "data": data, "recipe": RECIPE, "output": tmp_path / "run"} | change
    with pytest.raises(ValueError, match=pattern):
        train(**arguments)


def test_steps_that_overflowed_are_not_trained_again(tmp_path):
    """In mixed_float16 they are not counted: 3 epochs of 20 steps were 60 or some fewer."""
    for iterations, epochs in ((0, 0), (20, 1), (41, 3), (60, 3)):
        network = SimpleNamespace(optimizer=SimpleNamespace(iterations=np.int64(iterations)))
        assert training._restore(network, tmp_path, steps=20) == epochs


def test_a_precision_whose_weights_are_not_float32_is_refused():
    with pytest.raises(ValueError, match="`precision` must be one of 'float32', .*'mixed_float16'. Received: 'bfloat"):
        Engine(precision="bfloat16")


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow synchronizes")
def test_batch_norm_that_cannot_be_synchronized_is_refused():
    with pytest.raises(ValueError, match="'synchronized' is of TensorFlow's strategies"):
        Engine(batch_norm="synchronized")


def test_an_unknown_strategy_lists_those_there_are():
    with pytest.raises(ValueError, match="one of 'none', 'mirrored', 'multi-worker', 'jax'. Received: 'horovod'"):
        Engine(strategy="horovod")


@pytest.mark.parametrize("loop", [False, True])
def test_mixed_precision_computes_in_bfloat16_and_keeps_float32(loop, data, tmp_path):
    def trained(precision):
        recipe, engine = dataclasses.replace(RECIPE, epochs=2), Engine(precision=precision, loop=loop)
        train(NetworkConfig((3,), (4,)), data, recipe, tmp_path / precision, engine=engine, verbose=0)
        return kp.load_run(tmp_path / precision)[0].get_weights()

    exact, mixed = trained("float32"), trained("mixed_bfloat16")
    errors = [np.abs(a - b).max() / np.abs(a).max() for a, b in zip(exact, mixed, strict=True)]
    assert 1e-4 < np.median(errors) < 0.05, errors  # eight bits
    # What was updated in eight bits has no others.
    assert all((np.frombuffer(w.tobytes(), "uint32") & 0xFFFF).any() for w in mixed if w.ndim == 4)
    assert keras.config.dtype_policy().name == "float32"
