"""Paths as users give them: their home, addresses of remote stores, and the folder of now."""
import os
import signal
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_preact as kp
from keras_preact import cli
from keras_preact._support import atomic
from keras_preact._support.drawing import drawing
from keras_preact._support.paths import local
from keras_preact.data import datasets
from keras_preact.paper import experiments, reporting
from keras_preact.training import runs

ARRAYS = {"x_train": np.zeros((4, 8, 8, 3), "uint8"), "y_train": np.arange(4) % 2} | {
    "x_test": np.zeros((2, 8, 8, 3), "uint8"), "y_test": np.arange(2)}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's home, beside the folder of now."""
    (tmp_path / "home").mkdir()
    (tmp_path / "now").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "now")
    return tmp_path / "home"


@pytest.mark.parametrize("path, found", [
    ("a/b", "a/b"), ("/a", "/a"), (".", "."), (Path("a"), "a"), ("a:/b", "a:/b"), ("C:/b", "C:/b"), ("a~", "a~"),
])
def test_paths_that_stay_as_they_are(path, found):
    assert local("path", path) == Path(found)


@pytest.mark.parametrize("path, error, message", [
    ("gs://bucket/a", ValueError, "`data` must be on this machine: mount gs:// as a folder.*Received: gs://bucket/a"),
    (Path("s3://bucket/a"), ValueError, "`data` must be on this machine: mount s3://"),
    ("abfs+ssl://a", ValueError, "on this machine"), ("", ValueError, "`data` must not be empty"),
    (3, TypeError, "`data` must be a path. Received: 3 of type int"), (None, TypeError, "must be a path"),
])
def test_what_is_no_path_of_this_machine_is_refused(path, error, message):
    with pytest.raises(error, match=message):
        local("data", path)


CALLS = {
    "write": lambda path: atomic.write_text(path, "text"),
    "train": lambda path: kp.train("PreActResNet20", ARRAYS, "cifar_short", path),
    "data": datasets.load, "run": runs.load_run, "read_run": runs.read_run, "log": runs.read_log,
    "weights": lambda path: kp.PreActResNet20(weights=f"{path}.weights.h5"),
    "convert": lambda path: kp.convert("timm", path),
    "export": lambda path: kp.export(kp.PreActResNet20(weights="cifar10"), path),
    "export_file": lambda path: kp.export(kp.PreActResNet20(weights="cifar10"), f"{path}.onnx", "onnx"),
    "push": lambda path: kp.push_to_hub(path, "owner/name", dry_run=True),
    "reporting": reporting.report,
    "results": lambda path: experiments.results(next(iter(experiments.EXPERIMENTS)), path),
}


def read_beside(path):
    """Reads the .onnx file that this JSON file is beside."""
    path.with_suffix("").touch()
    kp.predictor(path.with_suffix(""))


READERS = {  # of files by name
    "a.csv": datasets.load, "a.npz": datasets.load, "a.weights.h5": lambda path: kp.PreActResNet20(weights=path),
    "a.keras": kp.load_model, "a.onnx": kp.predictor, "a.safetensors": partial(kp.convert, "timm"),
    "a.pth": partial(kp.convert, "torchvision"), "a.t7": partial(kp.convert, "torch7"),
    "a.h5": partial(kp.convert, "pytorchcv"), "run.json": lambda path: runs.read_run(path.parent),
    "log.csv": runs.read_log, "b.onnx.json": read_beside,
}


@pytest.mark.parametrize("call", CALLS)
def test_every_call_refuses_addresses_of_remote_stores(call, home):
    if call == "export" and keras.backend.backend() != "tensorflow":
        pytest.skip("networks are exported by TensorFlow")
    for address in ("gs://bucket/folder", Path("s3://bucket/folder")):
        with pytest.raises(ValueError, match="must be on this machine: mount (gs|s3)://"):
            CALLS[call](address)
    assert list(Path().iterdir()) == list(home.iterdir()) == []


@pytest.mark.parametrize("verb", [
    ["evaluate", "PreActResNet20", "--weights", "cifar10", "--data", "gs://bucket/a"], ["classify", "gs://bucket/a"],
    ["explain", "IMAGE", "--output", "gs://bucket/a.png"],
    ["export", "PreActResNet20", "--weights", "cifar10", "--output", "gs://bucket/a"],
    ["evaluate", "gs://b/a", "--data", "."],
])
def test_the_command_does_too(verb, home, capsys):
    Image.new("RGB", (32, 32)).save("a.png")
    assert cli.main(["a.png" if word == "IMAGE" else word for word in verb]) == 2
    assert "must be on this machine: mount gs://" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["a.png"]


@pytest.fixture
def ending():
    """Ends a process that waits."""
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_refused_and_not_waited_for(name, tmp_path, ending):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match="does not exist|is a pipe"):
        READERS[name](tmp_path / name)


def test_the_users_home(home):
    np.savez(home / "data.npz", **ARRAYS)
    assert datasets.load("~/data.npz").name == "data"
    atomic.write_text("~/new/text", "hello")
    assert (home / "new" / "text").read_text() == "hello" and list(Path().iterdir()) == []
    model = kp.PreActResNet20()
    model.save_weights(home / "own.weights.h5")
    again = kp.PreActResNet20(weights="~/own.weights.h5")
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])
    with drawing("~/plots/a.png") as axes:
        axes.plot([1, 2])
    assert (home / "plots" / "a.png").stat().st_size and list(Path().iterdir()) == []


def test_the_folder_of_now_has_a_name(home):
    for name in ("cats", "dogs"):
        Path(name).mkdir()
        for i in range(5):
            Image.new("RGB", (8, 8)).save(f"{name}/{i}.png")
    assert datasets.load(".").name == "now" and datasets.load("../now/").name == "now"
