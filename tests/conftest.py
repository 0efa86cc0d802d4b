import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the command does
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import hub_server  # noqa: F401  sets the environment of huggingface_hub, which Keras imports
import numpy as np
import pytest
from PIL import Image

from keras_preact._support.processes import quietly

HERE = Path(__file__).parent

with quietly():  # what TensorFlow says then would come after pytest's closing line
    import keras


def pytest_configure(config):
    # Saving a TensorFlow variable with NumPy 2 warns, in Keras's code.
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation doesn't accept:DeprecationWarning")
    # Uploading does, in huggingface_hub's.
    config.addinivalue_line("filterwarnings", "ignore:Use 'content=<...>' to upload raw:DeprecationWarning")


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


@pytest.fixture
def dtype_policy():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.fixture(scope="session")
def samples():
    """{data set: (images, labels)}, of sheets with so many images in a row."""
    found = {}
    for name, row in (("cifar10", 40), ("cifar100", 25)):
        file = HERE / "data" / f"{name}_sample"
        sheet = np.asarray(Image.open(file.with_suffix(".webp")).convert("RGB"))
        images = sheet.reshape(-1, 32, row, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)
        labels = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))["labels"]
        found[name] = images, np.array([int(label) for label in labels])
    return found


@pytest.fixture(scope="session")
def tf2cv_network():
    """Writes a network of tf2cv into a .h5 file and returns its logits of images, by a process that has Keras 2."""
    pytest.importorskip("tf2cv")
    process = subprocess.Popen(
        [sys.executable, "tf2cv_network.py"], cwd=HERE, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"TF_USE_LEGACY_KERAS": "1", "KERAS_BACKEND": "tensorflow"},
    )

    def write(name, images, file):
        given, logits = (str(file.with_suffix(suffix)) for suffix in (".images.npy", ".logits.npy"))
        np.save(given, images)
        print(json.dumps([name, given, str(file), logits]), file=process.stdin, flush=True)
        assert process.stdout.readline() == f"{name}\n"
        return np.load(logits)

    yield write
    process.communicate()
