"""Averages of weights against sums by hand, and their statistics against means over what enters each layer."""
import dataclasses

import helpers
import keras
import numpy as np
import pytest
from helpers import end_of, killed

import keras_preact as kp
from keras_preact.data import datasets
from keras_preact.data.batches import TrainingBatches
from keras_preact.networks import files
from keras_preact.networks.graph import normalizations_of
from keras_preact.training import averaging

ONE = kp.Recipe("one", "a step an epoch, all at the same rate", epochs=3, batch_size=64, drops=(), padding=1)
NETWORK = kp.NetworkConfig((1, 1), (4, 6))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 96)
    images = (rng.integers(0, 128, (96, 8, 8, 3)) + 32 * labels[:, None, None, None]).astype("uint8")
    return (images[:64], labels[:64]), (images[64:], labels[64:])


def variables_of(folder):
    return helpers.weights_of(kp.load_run(folder)[0])


@pytest.mark.parametrize("survival", [1.0, helpers.slow(0.4)])
def test_a_run_ends_with_averages_and_their_statistics(survival, data, tmp_path):
    if survival < 1 and keras.backend.backend() != "tensorflow":
        pytest.skip("stochastic depth is TensorFlow's")
    recipe = dataclasses.replace(ONE, survival=survival)
    for epochs in (1, 2, 3):
        kp.train(NETWORK, data, dataclasses.replace(recipe, epochs=epochs), tmp_path / str(epochs), verbose=0)
    log = kp.train(NETWORK, data, dataclasses.replace(recipe, ema=0.75), tmp_path / "averaged", verbose=0)

    first, second, third = (variables_of(tmp_path / str(epochs)) for epochs in (1, 2, 3))
    averaged = variables_of(tmp_path / "averaged")
    for name, value in averaged.items():
        if "moving" not in name:
            by_hand = 0.75 * (0.75 * first[name] + 0.25 * second[name]) + 0.25 * third[name]
            np.testing.assert_allclose(value, by_hand, rtol=1e-4, atol=1e-6, err_msg=name)
    assert np.abs(averaged["stem_conv/kernel"] - third["stem_conv/kernel"]).max() > 1e-3

    model = kp.load_run(tmp_path / "averaged")[0]
    batch = TrainingBatches(datasets.load(data), recipe, seed=1)[0][0]
    norms = normalizations_of(model)
    entering = keras.Model(model.inputs[0], [norm.input for norm in norms])(batch, training=True)
    for norm, values in zip(norms, entering):
        values = keras.ops.convert_to_numpy(values).astype("float64")
        np.testing.assert_allclose(norm.moving_mean, values.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(norm.moving_variance, values.var((0, 1, 2)), rtol=1e-4, atol=1e-5)
    assert log[-1]["test_error"] == f"{kp.evaluate(model, data, verbose=0).top1_error:.2f}"


def test_training_goes_on_from_its_own_weights(data, tmp_path):
    """The checkpoint is that of the same run without averages, statistics included."""
    plain, averaged = (
        kp.train(NETWORK, data, dataclasses.replace(ONE, ema=ema), tmp_path / str(ema), verbose=0) for ema in (0.0, 0.9)
    )
    assert [row["loss"] for row in plain] == [row["loss"] for row in averaged]
    plain, averaged = (files.read(tmp_path / str(ema) / "checkpoint.weights.h5") for ema in (0.0, 0.9))
    for layer, arrays in plain.items():
        for a, b in zip(arrays, averaged[layer]):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_killed_run_ends_as_another(data, tmp_path):
    recipe = dataclasses.replace(ONE, batch_size=16, ema=0.9)
    kp.train(NETWORK, data, recipe, tmp_path / "whole", seed=7, verbose=0)
    with killed(2, before_checkpoint=True):
        kp.train(NETWORK, data, recipe, tmp_path / "killed", seed=7, verbose=0)
    kp.train(NETWORK, data, recipe, tmp_path / "killed", seed=7, verbose=0)
    # As one that was killed before its last file was written.
    (tmp_path / "killed" / "final.weights.h5").unlink()
    kp.train(NETWORK, data, recipe, tmp_path / "killed", seed=7, verbose=0)
    (log, weights), (resumed_log, resumed) = end_of(tmp_path / "whole"), end_of(tmp_path / "killed")
    assert log == resumed_log
    for a, b in zip(weights, resumed):
        np.testing.assert_array_equal(a, b)


def test_statistics_are_of_a_bounded_number_of_batches(monkeypatch, data, tmp_path):
    seen = []
    monkeypatch.setattr(averaging, "recalibrate", lambda model, batches: seen.append(len(list(batches))))
    monkeypatch.setattr(averaging, "BATCHES", 4)
    kp.train(NETWORK, data, dataclasses.replace(ONE, batch_size=16, epochs=1, ema=0.9), tmp_path, verbose=0)
    assert seen == [4, 4]  # after the epoch, and at the end


def test_frozen_statistics_stay(data, tmp_path):
    kp.train(NETWORK, data, dataclasses.replace(ONE, epochs=1), tmp_path / "start", verbose=0)
    start = kp.load_run(tmp_path / "start")[0]
    recipe = dataclasses.replace(ONE, ema=0.5, bn="frozen")
    kp.train(NETWORK, data, recipe, tmp_path / "tuned", verbose=0, weights=start)
    before, after = helpers.weights_of(start), variables_of(tmp_path / "tuned")
    assert all(np.array_equal(before[name], after[name]) for name in before if "bn" in name)
    assert not np.array_equal(before["stem_conv/kernel"], after["stem_conv/kernel"])
