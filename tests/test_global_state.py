"""What belongs to the user's process is after a call what it was before.

But for Python's random numbers, of which Keras takes one for each layer that anybody builds.
"""
import contextlib
import os
import random
import sys
import warnings

import helpers
import keras
import matplotlib
import numpy as np
import pytest

import keras_preact as kp
from keras_preact._support.settings import random_seed

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exports, too")


def state():
    return {
        "backend of Matplotlib": matplotlib.rcParams._get("backend"),
        "data type": keras.config.floatx(),
        "dtype policy": keras.config.dtype_policy().name,
        "environment": dict(os.environ),
        "epsilon": keras.config.epsilon(),
        "image data format": keras.config.image_data_format(),
        "numbers of NumPy": str(np.random.get_state()),
        "printing of NumPy": np.get_printoptions(),
        "recursion limit": sys.getrecursionlimit(),
        "traceback filtering": keras.config.is_traceback_filtering_enabled(),
        "warnings": list(warnings.filters),
        "working directory": os.getcwd(),
    }


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (48, 8, 8, 3), dtype="uint8"), np.arange(48) % 3
    return {"x_train": images[:32], "y_train": labels[:32], "x_test": images[32:], "y_test": labels[32:]}


def a_run(folder, data):
    recipe = kp.Recipe("tiny", "a test", epochs=1, batch_size=16, schedule="cosine", padding=1)
    engine = kp.Engine(precision="mixed_bfloat16")
    kp.train(helpers.tiny(), data, recipe, folder / "run", engine=engine, verbose=0)


CALLS = {
    "train, with a curve": lambda folder, data, model: a_run(folder / "again", data),
    "build a deep one": lambda folder, data, model: kp.ResNet(kp.NetworkConfig((170,), (4,)), input_shape=(8, 8, 3)),
    "evaluate": lambda folder, data, model: kp.evaluate(model, data, verbose=0).plot(folder / "confusion.png"),
    "savedmodel": lambda folder, data, model: kp.export(model, folder / "served"),
    "onnx": lambda folder, data, model: kp.export(model, folder / "a.onnx", "onnx"),
    "litert": lambda folder, data, model: kp.export(model, folder / "a.tflite", "litert"),
    "publish": lambda folder, data, model: kp.push_to_hub(folder / "run", "owner/name", dry_run=True),
    "explain": lambda folder, data, model: kp.grad_cam(model, data["x_test"][:1]),
    "save and load": lambda folder, data, model: (model.save(folder / "a.keras"), kp.load_model(folder / "a.keras")),
    "simplify": lambda folder, data, model: kp.simplify_for_inference(model),
    "recalibrate": lambda folder, data, model: kp.recalibrate(kp.load_run(folder / "run")[0], data["x_test"] / 255.0),
}
SLOW = "build a deep one", "litert"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("state")
    a_run(folder, data)
    return folder, kp.load_run(folder / "run")[0]


@pytest.mark.parametrize("call", [helpers.slow(call) if call in SLOW else call for call in CALLS])
def test_a_call_leaves_the_process_as_it_was(call, trained, data):
    before = state()
    CALLS[call](trained[0], data, trained[1])
    after = state()
    assert {name for name in before if before[name] != after[name]} == set()


def test_the_seed_of_tensorflow_is_that_of_the_user():
    """Which nobody can read: the next number tells it."""
    import tensorflow as tf

    def next_number(between):
        tf.random.set_seed(7)
        with between:
            pass
        return float(tf.random.uniform(()))

    assert next_number(contextlib.nullcontext()) == next_number(random_seed(1))


def test_training_draws_none_of_the_numbers_of_the_user(data, tmp_path):
    before = random.getstate(), str(np.random.get_state())
    a_run(tmp_path, data)
    assert (random.getstate(), str(np.random.get_state())) == before
