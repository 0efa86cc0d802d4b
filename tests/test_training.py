"""Data, optimizer and engine of the training script, against values computed by hand."""
import dataclasses
import json
import re

import keras
import numpy as np
import pytest

from keras_preact.datasets import Batches, crop_and_flip, load_npz
from keras_preact.networks import NetworkConfig, ResNet
from keras_preact.recipes import RECIPES, Recipe
from keras_preact.training import SGD, read_log, train


def test_crops_and_flips_are_windows_of_the_padded_image():
    images = np.arange(1, 2 * 3 * 4 + 1, dtype="float32").reshape(2, 3, 4, 1)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    seen = set()
    for seed in range(200):
        for n, crop in enumerate(crop_and_flip(images, 1, np.random.default_rng(seed))):
            windows = {
                (t, s, f): padded[n, t:t + 3, s:s + 4][:, ::-1 if f else 1]
                for t in range(3) for s in range(3) for f in (False, True)
            }
            (found,) = [key for key, window in windows.items() if np.array_equal(window, crop)]
            seen.add(found)
    assert len(seen) == 18  # every offset, flipped and not


def test_an_epoch_holds_every_image_once_and_follows_from_the_seed():
    images = np.arange(64, dtype="float32").reshape(64, 1, 1, 1)
    batches = Batches(images, np.arange(64), 16, 0, seed=3)

    def epoch():
        return np.concatenate([batches[i][1] for i in range(len(batches))])

    first = epoch()
    assert sorted(first) == list(range(64)) and list(first) != list(range(64))
    batches.on_epoch_end()
    second = epoch()
    assert sorted(second) == list(range(64)) and list(first) != list(second)
    assert list(Batches(images, np.arange(64), 16, 0, seed=3, epoch=1)[0][1]) == list(second[:16])
    assert list(Batches(images, np.arange(64), 16, 0, seed=4)[0][1]) != list(first[:16])


def test_sgd_takes_the_coupled_l2_gradient_on_kernels_alone():
    rate, momentum, l2 = 0.1, 0.9, 0.01
    kernel, gamma = keras.Variable([2.0], name="kernel"), keras.Variable([2.0], name="gamma")
    optimizer = SGD(rate, momentum, nesterov=True, l2=l2)
    expected = {}
    for name, decay in (("kernel", l2), ("gamma", 0.0)):
        w, v = 2.0, 0.0
        for gradient in (1.0, -0.5, 0.25):
            g = gradient + decay * w
            v = momentum * v - rate * g
            w += momentum * v - rate * g
        expected[name] = w
    for gradient in (1.0, -0.5, 0.25):
        optimizer.apply([keras.ops.convert_to_tensor([gradient])] * 2, [kernel, gamma])
    np.testing.assert_allclose(kernel.numpy(), expected["kernel"], rtol=1e-6)
    np.testing.assert_allclose(gamma.numpy(), expected["gamma"], rtol=1e-6)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 96)
    images = rng.integers(0, 128, (96, 8, 8, 3)) + 32 * labels[:, None, None, None]
    images, labels = images.astype("uint8"), labels.astype("uint8")
    return {"x_train": images[:64], "y_train": labels[:64], "x_test": images[64:], "y_test": labels[64:]}


RECIPE = dataclasses.replace(RECIPES["cifar_short"], epochs=3, batch_size=16, warmup_epochs=1, padding=1)


class Killed(BaseException):
    pass


def run(data, folder, stop_after=None):
    keras.utils.set_random_seed(5)
    model = ResNet(NetworkConfig((1, 1), (4, 6)), input_shape=(8, 8, 3), classes=4, classifier_activation=None)
    fit = model.fit

    def interrupted(*args, callbacks, **kwargs):
        if stop_after is not None:
            callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: stop(epoch)))
        return fit(*args, callbacks=callbacks, **kwargs)

    def stop(epoch):
        if epoch + 1 == stop_after:
            raise Killed

    model.fit = interrupted
    train(model, data, lambda x: x / np.float32(255), RECIPE, folder, seed=7)
    return [np.array(variable) for variable in model.weights + model.optimizer.variables]


def test_a_run_that_was_stopped_ends_as_one_that_was_not(data, tmp_path):
    whole = run(data, tmp_path / "whole")
    with pytest.raises(Killed):
        run(data, tmp_path / "stopped", stop_after=2)
    resumed = run(data, tmp_path / "stopped")
    for a, b in zip(whole, resumed):
        np.testing.assert_array_equal(a, b)
    logs = [[r | {"seconds": 0} for r in read_log(tmp_path / f / "log.csv")] for f in ("whole", "stopped")]
    assert logs[0] == logs[1]
    assert [row["learning_rate"] for row in logs[0]] == ["0.200000", "0.100000", "0.000000"]  # warm-up, then cosine
    assert json.loads((tmp_path / "whole" / "recipe.json").read_text()) == dataclasses.asdict(RECIPE) | {"seed": 7}
    for row in logs[0]:
        assert re.fullmatch(r"\d+\.\d\d", row["test_error"]) and 0 <= float(row["test_error"]) <= 100


def test_training_lowers_the_loss(data, tmp_path):
    run(data, tmp_path)
    losses = [float(row["loss"]) for row in read_log(tmp_path / "log.csv")]
    assert losses[-1] < losses[0]


def test_a_data_file_must_have_its_four_arrays(tmp_path, data):
    np.savez(tmp_path / "data.npz", **{k: v for k, v in data.items() if k != "y_test"})
    with pytest.raises(ValueError, match="must hold x_train, y_train, x_test, y_test.* has no y_test"):
        load_npz(tmp_path / "data.npz")


def test_recipes_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["cifar_short"].epochs = 1
    assert isinstance(RECIPES["cifar_short"], Recipe)
