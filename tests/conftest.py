import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the command does

import hub_server  # noqa: F401  sets the environment of huggingface_hub, which Keras imports
import pytest

from keras_preact._support.processes import quietly

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
