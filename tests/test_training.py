"""Recipes, optimizer and engine, against values computed by hand."""
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import helpers
import keras
import numpy as np
import pytest
from helpers import PACKAGE_PARENT, end_of, killed

import keras_preact as kp
from keras_preact._support import atomic
from keras_preact.networks import files
from keras_preact.networks.config import NetworkConfig
from keras_preact.training import engine as training, recipes, runs
from keras_preact.training.engine import Diverged, Engine, train
from keras_preact.training.optimizers import SGD
from keras_preact.training.recipes import RECIPES, Recipe
from keras_preact.training.runs import read_log
from keras_preact.zoo import described

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


def test_a_rate_may_stay_as_it_is():
    steady = dataclasses.replace(RECIPE, schedule="steps", warmup_steps=0, drops=())
    np.testing.assert_allclose(rates(steady, 4, (0, 11)), 0.1, rtol=1e-6)
    warmed = dataclasses.replace(RECIPE, schedule="steps", warmup_rate=0.01, drops=())
    np.testing.assert_allclose(rates(warmed, 4, (0, 3, 4, 11)), [0.01, 0.01, 0.1, 0.1], rtol=1e-6)


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
        ({"learning_rate": -0.1}, "`learning_rate` must be positive. Received: -0.1"),
        ({"schedule": "steps"}, "give `warmup_rate`"),
        ({"nesterov": "False"}, "`nesterov` must be of the type bool. Received: 'False'"),
        ({"learning_rate": ".1"}, "`learning_rate` must be of the type float. Received: '.1'"),
        ({"warmup_rate": "0.1"}, r"`warmup_rate` must be of the type float \| None. Received: '0.1'"),
        ({"drops": 0.5}, "`drops` must be of the type tuple. Received: 0.5"),
        ({"drops": (0.75, 0.5)}, r"`drops` must be parts .* in ascending order. Received: \(0.75, 0.5\)"),
        ({"drops": (0.5, 0.5)}, "in ascending order"),
        ({"drops": (1.5,)}, "between 0 and 1"),
        ({"drops": ("0.5",)}, "`drops` must be parts"),
        ({"epochs": True}, "`epochs` must be of the type int. Received: True"),
        ({"label_smoothing": 3}, "`label_smoothing` must be at least 0 and less than 1. Received: 3"),
        ({"momentum": 5}, "`momentum` must be at least 0 and less than 1. Received: 5"),
        ({"padding": -1}, "`padding` must be at least 0. Received: -1"),
        ({"warmup_steps": -1}, "`warmup_steps` must be at least 0"),
        ({"warmup_rate": -0.1}, "`warmup_rate` must be at least 0"),
        ({"weight_decay": float("nan")}, "`weight_decay` must be at least 0. Received: nan"),
        ({"learning_rate": float("inf")}, "`learning_rate` must be positive. Received: inf"),
        ({"cutout": -2}, "`cutout` must be at least 0"),
        ({"mixup": -0.5}, "`mixup` must be at least 0"),
        ({"colour": 1.5}, "`colour` must lie between 0 and 1. Received: 1.5"),
        ({"lighting": -1}, "`lighting` must be at least 0"),
        ({"size": 0}, "`size` must be positive"),
        ({"warmup_of": 0}, "`warmup_of` must be positive"),
        ({"survival": 0.0}, "`survival` must be above 0 and at most 1. Received: 0.0"),
        ({"layer_decay": 1.5}, "`layer_decay` must be above 0 and at most 1. Received: 1.5"),
        ({"head_epochs": 3}, "`head_epochs` must be less than the 3 epochs. Received: 3"),
        ({"head_epochs": 4}, "`head_epochs` must be less than the 3 epochs. Received: 4"),
        ({"drops": (0.0, 0.5)}, r"parts of the run between 0 and 1.*Received: \(0.0, 0.5\)"),
        ({"drops": (0.5, 1.0)}, r"parts of the run between 0 and 1.*Received: \(0.5, 1.0\)"),
    ):
        with pytest.raises(ValueError, match=pattern):
            dataclasses.replace(RECIPE, **change)


def test_the_target_of_a_recipe_sums_to_one_over_all_classes():
    """0.1 spread over 5 classes is 0.02 each, the right one among them."""
    smooth = dataclasses.replace(RECIPE, label_smoothing=0.1)
    np.testing.assert_allclose(smooth.target_values(5), (0.92, 0.02), rtol=1e-12)
    assert RECIPE.target_values(5) == (1, 0)


PUBLISHED = {
    # Batch, rate, schedule, drops, momentum, Nesterov, decay and of what; epochs, warm-up, its rate, augmentation.
    "cifar_paper": (
        (128, 0.1, "steps", (32 / 64, 48 / 64), 0.9, False, 1e-4, "all"), (164, 400, 0.01, "pad_crop", 4, 0, 0, None)
    ),
    "cifar_paper_64": (
        (64, 0.1, "steps", (32 / 64, 48 / 64), 0.9, False, 1e-4, "all"), (164, 400, 0.01, "pad_crop", 4, 0, 0, None)
    ),
    "cifar_torch": (
        (64, 0.1, "steps", (80 / 200, 121 / 200), 0.9, True, 1e-4, "all"), (200, 0, None, "pad_crop", 4, 0, 0, None)
    ),
    "imagenet_paper": (
        (256, 0.1, "steps", (30 / 90, 60 / 90), 0.9, False, 1e-4, "all"), (90, 0, None, "scale_jitter", 4, 0, 0.1, None)
    ),
    "imagenet_torch": (
        (256, 0.1, "steps", (30 / 90, 60 / 90), 0.9, True, 1e-4, "all"),
        (90, 0, None, "scale_aspect", 4, 0.4, 0.1, None),
    ),
    "cifar_short": (
        (128, 0.2, "cosine", (0.5, 0.75), 0.9, True, 5e-4, "kernels"), (75, 780, None, "pad_crop", 4, 0, 0, None)
    ),
    "cifar_best": (
        (128, 0.2, "cosine", (0.5, 0.75), 0.9, True, 5e-4, "kernels"), (200, 780, None, "pad_crop", 4, 0, 0, None)
    ),
    "cifar_fast": (
        (128, 0.02, "cosine", (0.5, 0.75), 0.9, True, 0.1, "kernels"), (40, 400, None, "pad_crop", 4, 0, 0, None)
    ),
}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_has_its_published_numbers(name):
    """The paper's appendix; resnet-1k-layers' and fb.resnet.torch's opts.lua, train.lua and datasets/imagenet.lua."""
    recipe = RECIPES[name]
    found = (
        (recipe.batch_size, recipe.learning_rate, recipe.schedule, recipe.drops, recipe.momentum, recipe.nesterov,
         recipe.weight_decay, recipe.decay),
        (recipe.epochs, recipe.warmup, recipe.warmup_rate, recipe.augmentation, recipe.padding, recipe.colour,
         recipe.lighting, recipe.size),
    )
    assert found == PUBLISHED[name]
    smoothing = 0.1 if name in ("cifar_best", "cifar_fast") else 0
    assert (recipe.cutout, recipe.mixup, recipe.label_smoothing) == (0, 0, smoothing)
    assert recipe.optimizer == ("muon" if name == "cifar_fast" else "sgd")
    later = (recipe.accumulate, recipe.clip, recipe.ema, recipe.erasing, recipe.cutmix, recipe.survival)
    assert later == (1, None, 0, 0, 0, 1) and (recipe.head_epochs, recipe.layer_decay, recipe.bn) == (0, 1, "trained")


def test_warm_up_scales_with_the_epochs():
    """400 iterations of 164 epochs are 2 of one and 5 of two; what was meant for this run stays."""
    one = dataclasses.replace(RECIPES["cifar_paper"], epochs=1)
    np.testing.assert_allclose(rates(one, 390, (0, 1, 2, 194, 195)), [0.01, 0.01, 0.1, 0.1, 0.01], rtol=1e-6)
    assert dataclasses.replace(one, epochs=2).warmup == round(800 / 164) == 5
    assert dataclasses.replace(one, epochs=2, warmup_of=None).warmup == 400
    short = dataclasses.replace(RECIPES["cifar_short"], epochs=15)
    np.testing.assert_allclose(rates(short, 390, (78, 156)), [0.1, 0.2], rtol=1e-6)
    assert Recipe(**json.loads(json.dumps(dataclasses.asdict(one)))) == one


@pytest.mark.parametrize("recipe, falls", [("cifar_paper", 164 * 4 // 2), ("cifar_short", 75 * 10)])
def test_a_warm_up_longer_than_the_run_is_refused(recipe, falls):
    with pytest.raises(ValueError, match=rf"less than the {falls} steps.*warmup_steps={falls // 10}\). Received: [47]"):
        RECIPES[recipe].learning_rates(4 if recipe == "cifar_paper" else 10)
    RECIPES[recipe].learning_rates(11)


def test_a_recipe_that_does_not_fit_leaves_no_folder(data, tmp_path):
    with pytest.raises(ValueError, match="`warmup_steps` must be less than the 60 steps .* 20 an epoch.*Received: 780"):
        train(NETWORK, data, dataclasses.replace(RECIPE, warmup_steps=780), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("loop", [False, pytest.param(True, marks=[pytest.mark.slow, pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="does not loop")])])
def test_a_run_starts_from_weights(loop, data, tmp_path):
    """With a learning rate of next to nothing the weights after an epoch are those it started from."""
    config = NetworkConfig((3, 1), (4, 6))
    model = helpers.build(config, (8, 8, 3), 4)
    helpers.randomize(model, 3)
    model.save_weights(tmp_path / "a.weights.h5")
    still = dataclasses.replace(RECIPE, epochs=1, warmup_steps=0, learning_rate=1e-30)
    for weights in (model, tmp_path / "a.weights.h5"):
        train(config, data, still, tmp_path / "run", engine=Engine(loop=loop), verbose=0, weights=weights)
        trained = files.read(tmp_path / "run" / runs.FINAL)
        for layer in model.layers:
            for variable, value in zip(layer.weights, trained.get(layer.name, ())):
                if "moving" not in variable.name:
                    np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    helpers.randomize(model, 4)
    with pytest.raises(ValueError, match="differs from this one.*\n  start: '[0-9a-f]+' before, '[0-9a-f]+' now"):
        train(config, data, still, tmp_path / "run", engine=Engine(loop=loop), verbose=0, weights=model)
    other = helpers.build(config, (8, 8, 3), 7)
    train(config, data, still, tmp_path / "other", engine=Engine(loop=loop), verbose=0, weights=other)
    stem, head = (files.read(tmp_path / "other" / runs.FINAL)[name][0] for name in ("stem_conv", "predictions"))
    np.testing.assert_array_equal(stem, other.get_layer("stem_conv").get_weights()[0])
    assert head.shape[-1] == 4
    with pytest.raises(ValueError, match="do not fit"):
        train(NETWORK, data, still, tmp_path / "third", verbose=0, weights=model)
    assert not (tmp_path / "third" / runs.LOG).exists()


def test_runs_are_listed_with_their_state_and_the_time_that_is_left(data, whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "a" / "finished")
    shutil.copytree(whole, tmp_path / "stopped", ignore=shutil.ignore_patterns(runs.FINAL))
    shutil.copytree(whole, tmp_path / "new", ignore=shutil.ignore_patterns(runs.FINAL, runs.LOG))
    lines = read_log(whole / runs.LOG)
    atomic.write_csv(tmp_path / "stopped" / runs.LOG, [lines[0] | {"images_per_second": "33"}])
    run = runs.read_run(whole)
    with runs.claimed(tmp_path / "new", run):
        rows = {row.pop("folder").removeprefix(f"{tmp_path}{os.sep}"): row for row in runs.found(tmp_path)}
    told = {"network": "custom", "data": "arrays", "recipe": "tiny", "seed": 7, "epochs": 3}
    assert rows == {
        f"a{os.sep}finished": told | {
            "epoch": 3, "error": float(lines[2]["test_error"]), "state": "finished", "left": 0,
        },
        # Two epochs of 330 images at 33 a second.
        "stopped": told | {"epoch": 1, "error": float(lines[0]["test_error"]), "state": "stopped", "left": 20},
        "new": told | {"epoch": 0, "error": None, "state": "running", "left": None},
    }
    assert runs.found(tmp_path / "nowhere") == []


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "whole"
    train(NETWORK, data, RECIPE, folder, seed=7, verbose=0)
    return folder


@pytest.mark.parametrize("before_checkpoint", [False, True])
def test_a_run_that_was_killed_ends_as_one_that_was_not(data, whole, tmp_path, before_checkpoint):
    with killed(2, before_checkpoint):
        train(NETWORK, data, RECIPE, tmp_path, seed=7, verbose=0)
    assert len(read_log(tmp_path / "log.csv")) == 2
    train(NETWORK, data, RECIPE, tmp_path, seed=7, verbose=0)
    (log, weights), (resumed_log, resumed) = end_of(whole), end_of(tmp_path)
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


@pytest.mark.parametrize("part, change, pattern", [
    ("y_train", lambda y: np.roll(y, 1), "data.digest: '[0-9a-f]+' before"),
    ("x_test", lambda x: x ^ 1, "data.digest: "),
])
def test_a_run_knows_its_data(part, change, pattern, data, whole):
    with pytest.raises(ValueError, match=pattern):
        train(NETWORK, data | {part: change(data[part])}, RECIPE, whole, seed=7)


def test_a_run_goes_on_in_the_same_precision_alone(data, whole):
    with pytest.raises(ValueError, match="engine.precision: 'float32' before, 'mixed_bfloat16' now"):
        train(NETWORK, data, RECIPE, whole, seed=7, engine=Engine(precision="mixed_bfloat16"))


def interrupted(data, folder):
    """A run that was stopped after the first of its three epochs."""
    with killed(1):
        train(NETWORK, data, RECIPE, folder, seed=7, verbose=0)
    return folder


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="measured on TensorFlow alone")
@pytest.mark.parametrize("flags, precision, told", [
    ("avx2 avx512_bf16", "float32", True), ("amx_bf16", "float32", True), ("avx2 avx512f", "float32", False),
    ("avx512_bf16", "mixed_bfloat16", False), (None, "float32", False),
])
def test_a_cpu_with_bfloat16_is_pointed_out(flags, precision, told, data, tmp_path, monkeypatch, capsys):
    if flags:
        (tmp_path / "cpuinfo").write_text(f"flags\t\t: fpu {flags}\n")
    monkeypatch.setattr(training, "CPU", tmp_path / "cpuinfo")
    # The last of the checks before a network is built.
    (tmp_path / "run").write_text("no folder")
    with pytest.raises(ValueError, match="`output`"):
        train(NETWORK, data, RECIPE, tmp_path / "run", engine=Engine(precision=precision), verbose=2)
    assert ("mixed_bfloat16" in capsys.readouterr().out) == told


def test_a_run_goes_on_elsewhere_and_records_it(data, whole, tmp_path, monkeypatch, capsys):
    interrupted(data, tmp_path)
    run = json.loads((tmp_path / "run.json").read_text())
    del run["data"]["digest"], run["replicas"], run["recipe"]["warmup_of"], run["engine"]["replicas"]  # an old one
    (tmp_path / "run.json").write_text(json.dumps(run))
    monkeypatch.setattr(training, "__version__", "9.9")
    train(NETWORK, data, RECIPE, tmp_path, seed=7, engine=Engine(steps_per_execution=5), verbose=2)
    now = runs.read_run(tmp_path)
    (resumed,) = now["resumed"]
    assert (resumed["after_epoch"], resumed["environment"]["keras_preact"]) == (1, "9.9")
    assert resumed["engine"]["steps_per_execution"] == 5 and now["environment"] == run["environment"]
    version = run["environment"]["keras_preact"]
    assert f"environment.keras_preact: '{version}' before, '9.9' now" in capsys.readouterr().out
    for a, b in zip(end_of(whole)[1], end_of(tmp_path)[1]):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("damage, pattern", [
    (lambda run: (run / "run.json").write_text(""), "run.json is not what a training run writes; put a copy"),
    (lambda run: (run / "run.json").write_text("[]"), "run.json is not what a training run writes; put a copy"),
    (lambda run: (run / "log.csv").unlink(), "log.csv must have a line for each of the 1 epochs .* and has 0; put"),
    (lambda run: (run / "log.csv").write_text("epoch,loss\n1"), "Line 2 of .*log.csv is not whole; put a copy"),
])
def test_a_damaged_folder_is_named(damage, pattern, data, tmp_path):
    damage(interrupted(data, tmp_path))
    with pytest.raises(ValueError, match=pattern):
        train(NETWORK, data, RECIPE, tmp_path, seed=7, verbose=0)


def test_a_folder_that_is_removed_meanwhile_is_named(data, tmp_path, monkeypatch):
    on_epoch_begin = training._Epochs.on_epoch_begin

    def removed(self, epoch, logs=None):
        on_epoch_begin(self, epoch, logs)
        if epoch:
            shutil.rmtree(tmp_path / "run")

    monkeypatch.setattr(training._Epochs, "on_epoch_begin", removed)
    with pytest.raises(ValueError, match="run.json was removed while the run went on"):
        train(NETWORK, data, RECIPE, tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


def test_two_processes_do_not_share_a_folder(data, tmp_path):
    """The lock of a process that was killed is taken over."""
    code = """
from pathlib import Path
from keras_preact.training import runs
with open(".lock", "a+") as file:
    runs._lock(file, Path("."))
    print("held", flush=True)
    input()
"""
    env = os.environ | {"PYTHONPATH": str(PACKAGE_PARENT)}
    other = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"is trained into by process {other.pid} on .*, since .*another `output`"):
            train(NETWORK, data, RECIPE, tmp_path, verbose=0)
        other.kill()
        other.wait()
    with runs.claimed(tmp_path, {"recipe": dataclasses.asdict(RECIPE), "data": {}, "config": {}, "seed": 1}):
        assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()


def test_the_time_that_is_left_is_told_between_epochs(tmp_path, monkeypatch, capsys):
    """Three epochs of 10 s each: 20 s after the first, 10 s after the second."""
    moments = iter(range(0, 60, 10))
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    callback = training._Epochs(tmp_path, None, 330, chief=True)
    callback.set_params({"epochs": 5, "steps": 20, "verbose": 2})
    callback.on_train_begin()
    for epoch in (2, 3, 4):
        callback.on_epoch_begin(epoch)
    assert capsys.readouterr().out.splitlines() == ["0:00:20 left in this run", "0:00:10 left in this run"]
    callback.set_params({"epochs": 5, "steps": 20, "verbose": 0})
    callback.on_epoch_begin(4)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_of_many_classes_the_five_best_are_logged_too(data, whole, tmp_path):
    many = data | {"y_train": np.arange(330) % 12, "y_test": np.arange(32) % 12}
    train(NETWORK, many, RECIPE, tmp_path / "run", verbose=0)
    report = kp.evaluate(kp.load_run(tmp_path / "run")[0], many, verbose=0)
    log = read_log(tmp_path / "run" / runs.LOG)
    assert 0 < report.wrong5 < report.wrong and log[-1]["test_error5"] == f"{100 * report.wrong5 / 32:.2f}"
    assert "test_error5" not in read_log(whole / runs.LOG)[0]
    # A log of an older version goes on.
    with killed(1):
        train(NETWORK, many, RECIPE, tmp_path / "old", verbose=0)
    rows = read_log(tmp_path / "old" / runs.LOG)
    atomic.write_csv(tmp_path / "old" / runs.LOG, [
        {column: value for column, value in row.items() if column != "test_error5"} for row in rows
    ])
    train(NETWORK, many, RECIPE, tmp_path / "old", verbose=0)
    found = [row["test_error5"] for row in read_log(tmp_path / "old" / runs.LOG)]
    assert found == ["", *(row["test_error5"] for row in log[1:])]


def test_the_logged_learning_rate_is_that_of_the_last_step(data, whole):
    """20 steps an epoch, 60 in all, 4 of warm-up: 0.05 (1 + cos(pi (step - 4) / 56)) at the steps 19, 39 and 59."""
    expected = [0.05 * (1 + np.cos(np.pi * (step - 4) / 56)) for step in (19, 39, 59)]
    assert [row["learning_rate"] for row in read_log(whole / "log.csv")] == [f"{rate:.3g}" for rate in expected]


def test_the_first_loss_is_looked_at(tmp_path):
    callback = training._StopOnDivergence(tmp_path, lambda step: 0.1)
    callback.set_params({"steps": 40})
    callback.on_epoch_begin(0)
    with pytest.raises(Diverged, match="training loss is nan by step 0"):
        callback.on_train_batch_end(0, {"loss": float("nan")})


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


def test_the_checkpoint_knows_its_epoch(tmp_path):
    """However many steps of mixed_float16 overflowed, which are not counted; without it, of 20 steps some fewer."""
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    network.compile(SGD(0.1))
    network.optimizer.build(network.trainable_variables)
    network.optimizer.iterations.assign(41)
    assert training._restore(network, tmp_path, steps=20) == 0
    for known, epoch in ((4, 4), (None, 3)):
        training._save(network, tmp_path / "checkpoint.weights.h5", True, known)
        assert training._restore(network, tmp_path, steps=20) == epoch


@pytest.mark.parametrize("kind", ["checkpoint", "described"])
def test_no_flipped_bit_is_loaded_silently(kind, tmp_path):
    """At 300 places of a tiny file, each of the end among them: an error, or all that was written."""
    network = keras.Sequential([keras.Input((2, 2, 2)), keras.layers.Conv2D(2, 1), keras.layers.BatchNormalization()])
    path = tmp_path / "tiny.weights.h5"
    if kind == "checkpoint":
        runs.save(path, network, 3)
    else:
        described.write(path, network, NETWORK, None, None)
    whole, expected = path.read_bytes(), files.read(path)
    rng = np.random.default_rng(0)
    end = range(len(whole) - files.SEALED, len(whole))
    places = [*rng.integers(0, len(whole), 300 - len(end)), *end]
    silent = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            files.read(path)
            silent += 1
        except ValueError as error:
            assert str(path) in str(error) and "Copy or download it again" in str(error)
    assert silent == 0
    path.write_bytes(whole)
    for name, arrays in files.read(path).items():
        for array, other in zip(arrays, expected[name], strict=True):
            np.testing.assert_array_equal(array, other)


def test_a_damaged_checkpoint_is_not_gone_on_from(data, tmp_path):
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    path = tmp_path / runs.CHECKPOINT
    runs.save(path, network, 3)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint.weights.h5 cannot be read.* not those that were written"):
        training._restore(network, tmp_path, steps=20)


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


@pytest.mark.parametrize("loop", [False, helpers.slow(True)])
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
