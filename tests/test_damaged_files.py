"""Every reader of files: whatever is in one, a ValueError names it, within a moment and without much memory.

Files are damaged by hand, and at random: KERAS_PREACT_FUZZ=10000 pytest tests/test_damaged_files.py does so for longer.
"""
import csv
import json
import os
import pickle
import zipfile

import h5py
import helpers
import numpy as np
import pytest
import torch7

import keras_preact as kp
from keras_preact._support import kinds
from keras_preact.data import arrays
from keras_preact.networks import files
from keras_preact.networks.config import NetworkConfig
from keras_preact.training import runs
from keras_preact.zoo import builders, described, importers
from keras_preact.zoo.resolving import Found

TRIES = int(os.environ.get("KERAS_PREACT_FUZZ", 40))
LOG = [{"epoch": 1, "loss": 1.5, "error": 60.0, "test_loss": 1.4, "test_error": 55.0}]


@pytest.fixture(scope="module")
def network():
    return helpers.build(helpers.tiny(), (8, 8, 3), 3)


@pytest.fixture(scope="module")
def run():
    config = {"units": [1], "widths": [4]}
    preprocessing = {"mean": [0.5], "std": [0.25], "size": [8, 8]}
    return {
        "model": "custom", "config": config, "data": {"name": "dots", "preprocessing": preprocessing}, "labels": ["a"],
        "recipe": {"name": "tiny", "source": "a test", "epochs": 1}, "seed": 1,
    }


def refused(read, path, pattern="."):
    with pytest.raises(ValueError, match=pattern) as caught:
        read(path)
    assert str(path) in str(caught.value)


def an_hdf5(path, change):
    """A .weights.h5 file of one layer, changed."""
    with h5py.File(path, "w") as h5:
        layer = h5.create_group("layers/conv/vars")
        layer.attrs["name"] = "stem_conv"
        layer["0"] = np.zeros((3, 3, 3, 4), "float32")
        change(h5)
    return path


def replaced(h5, name, value):
    del h5[name]
    h5[name] = value


@pytest.mark.parametrize("change", [
    lambda h5: replaced(h5, "layers/conv/vars", h5py.SoftLink("/nowhere")),
    lambda h5: replaced(h5, "layers/conv", np.zeros(3)),
    lambda h5: (h5.__delitem__("layers/conv/vars/0"), h5.create_group("layers/conv/vars/0")),
    lambda h5: replaced(h5, "layers", h5py.ExternalLink("another.h5", "/")),
    lambda h5: h5["layers/conv/vars"].attrs.__delitem__("name"),
    lambda h5: h5["layers/conv/vars"].attrs.__setitem__("name", [1, 2]),
], ids=["dangling link", "array for group", "group for array", "another file", "no name", "name of numbers"])
def test_weights_of_another_structure(change, tmp_path):
    refused(files.read, an_hdf5(tmp_path / "a.weights.h5", change), "cannot be read as Keras weights")


def test_a_kernel_without_a_shape_does_not_fit(tmp_path):
    path = an_hdf5(tmp_path / "a.weights.h5", lambda h5: replaced(h5, "layers/conv/vars/0", np.float32(1)))
    refused(lambda path: kp.PreActResNet20(weights=path, input_shape=(8, 8, 3)), path, "do not fit|values, and the net")


@pytest.mark.parametrize("about", [
    {"config": {"units": [1], "widths": [4], "gamma": 1}, "preprocessing": None, "labels": None},
    {"config": {}, "preprocessing": None, "labels": None},
    {"config": {"units": [1], "widths": [4]}, "preprocessing": {"mean": [0.5]}, "labels": None},
    {"config": {"units": [0], "widths": [4]}, "preprocessing": None, "labels": None},
    {"config": {"units": [1], "widths": [4], "order": "x"}, "preprocessing": None, "labels": None},
    {"config": {"units": [1], "widths": [4]}, "preprocessing": None, "labels": 5},
    {"config": [], "preprocessing": None, "labels": None}, {}, [], 3,
], ids=range(10))
def test_weights_that_tell_other_things(about, tmp_path):
    path = an_hdf5(tmp_path / "a.weights.h5", lambda h5: h5.__setitem__(described.ABOUT, json.dumps(about)))
    refused(described.about, path)


def test_a_packed_archive(network, tmp_path):
    network.save(tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def packed(weights):
        with zipfile.ZipFile(tmp_path / "b.keras", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in (members | {"model.weights.h5": weights}).items():
                archive.writestr(name, content)
        return tmp_path / "b.keras"

    whole = files.read(packed(members["model.weights.h5"]))
    for layer, values in files.read(tmp_path / "a.keras").items():
        for one, other in zip(values, whole[layer], strict=True):
            np.testing.assert_array_equal(one, other)
    refused(files.read, packed(bytes(10**8)), "is to become 100000000 bytes")


def test_a_layout_far_larger_than_its_weights_is_not_built(network, tmp_path):
    path = tmp_path / "a.weights.h5"
    described.write(path, network, NetworkConfig((1000,), (10_000,)), None, None)
    found = Found(path, described.about(path), lambda: path)
    asked = {"include_top": True, "pooling": None, "input_tensor": None, "input_shape": (8, 8, 3)}
    refused(lambda _: builders._build("custom", found, None, None, **asked), path, "nothing was built")


@pytest.mark.parametrize("change", [
    {"config": 3}, {"config": {"units": [1], "widths": [4], "gamma": 1}}, {"data": {}}, {"data": []},
    {"data": {"preprocessing": {"mean": [0.5]}}}, {"recipe": None}, {"labels": ...},
    {"labels": 5}, {"labels": [1]}, {"model": 5}, {"config": {"units": "a", "widths": [4]}},
    {"config": {"units": [10**8], "widths": [4]}},
    {"data": {"preprocessing": {"mean": [0.5], "std": [0.25], "size": [0, 0]}}},
], ids=range(13))
def test_a_run_that_tells_other_things(change, run, network, tmp_path):
    told = {key: value for key, value in (run | change).items() if value is not ...}
    (tmp_path / runs.RUN).write_text(json.dumps(told))
    runs.save(tmp_path / runs.FINAL, network)
    with pytest.raises(ValueError, match=str(tmp_path / runs.RUN)):
        kp.load_run(tmp_path)


def test_a_run_far_larger_than_its_weights_is_not_built(run, network, tmp_path, monkeypatch):
    (tmp_path / runs.RUN).write_text(json.dumps(run | {"config": {"units": [1], "widths": [3000]}}))
    runs.save(tmp_path / runs.FINAL, network)
    monkeypatch.setattr(runs, "ResNet", None)
    with pytest.raises(ValueError, match=f"{tmp_path / runs.FINAL} holds .*; nothing was built"):
        kp.load_run(tmp_path)


@pytest.mark.parametrize("change, word", [
    ({"model": ...}, "model"), ({"seed": "a"}, "seed"), ({"data": {"train_images": 3}}, "data.name"),
    ({"data": {"name": "dots"}}, "data.train_images"), ({"recipe": {"name": "tiny"}}, "recipe.epochs"),
    ({"recipe": {"name": ["tiny"], "epochs": 1}}, "recipe.name"),
])
def test_a_folder_with_a_run_that_tells_other_things(change, word, run, tmp_path):
    told = run | {"data": run["data"] | {"train_images": 3}} | change
    (tmp_path / runs.RUN).write_text(json.dumps({key: value for key, value in told.items() if value is not ...}))
    with pytest.raises(ValueError, match=f"{tmp_path / runs.RUN} is not what a training run writes.* by {word}$"):
        runs.found(tmp_path)


@pytest.mark.parametrize("row", [
    {"test_error": "nan"}, {"loss": "1.0.0"}, {"epoch": ""}, {"epoch": "1.5"}, {"test_error": ...},
])
def test_a_log_of_other_things(row, tmp_path):
    rows = [{key: value for key, value in (line | row).items() if value is not ...} for line in LOG]
    with open(tmp_path / "log.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    refused(runs.read_log, tmp_path / "log.csv", "Line 2 .* is not whole")


OTHERS = {
    "a PNG image": b"\x89PNG\r\n\x1a\n" + bytes(200), "an HTML page": b"<!doctype html>\n<title>404</title>",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a PyTorch file": None,
}
READERS = {
    "a.weights.h5": files.read, "a.keras": files.read, "a.h5": importers.files.keras,
    "a.safetensors": importers.files.safetensors, "a.pth": importers.files.torch,
    "a.t7": lambda path: importers.torch7.load(path, ""), "a.npz": arrays.from_npz,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_of_another_kind_is_called_so(kind, tmp_path):
    import torch

    torch.save({"a": torch.zeros(3)}, tmp_path / "a PyTorch file")
    for name, read in READERS.items():
        if (kind, name) != ("a PyTorch file", "a.pth"):
            (tmp_path / name).write_bytes(OTHERS[kind] or (tmp_path / kind).read_bytes())
            with pytest.raises(ValueError, match=f"{name} cannot be read as .*: it is {kind}") as error:
                read(tmp_path / name)
            assert not any(word in str(error.value) for word in ("truncated", "allow_pickle", "ownload")), name


TINY_TORCH7 = {"units": (1, 1, 1), "widths": (4, 6, 8), "imagenet": False}


def test_a_torch7_module_with_many_parents_ends(tmp_path):
    module = torch7.Module("nn.Identity")
    for _ in range(40):
        module = torch7.Module("nn.Sequential", {"modules": {1: module, 2: module}})
    torch7.save(tmp_path / "a.t7", module)
    refused(lambda path: importers.torch7.load(path, ""), tmp_path / "a.t7", "does not hold a network")


@pytest.mark.parametrize("start, shape, strides", [
    (0, (2, 2), (2, 1)), (1, (2, 3), (2, 1)), (1, (10**9, 10**9), (0, 0)),
])
def test_a_torch7_tensor_outside_its_storage(start, shape, strides, tmp_path):
    torch7.save(tmp_path / "a.t7", np.arange(4, dtype="float32").reshape(2, 2))
    content = (tmp_path / "a.t7").read_bytes()
    whole = np.array([2, 2, 2, 1, 1], "<i8").tobytes()
    assert whole in content
    (tmp_path / "a.t7").write_bytes(content.replace(whole, np.array([*shape, *strides, start], "<i8").tobytes()))
    refused(lambda path: importers.torch7._Reader(path).object(), tmp_path / "a.t7", "cannot be read as a Torch7 file")


def whole_files(folder, network, run):
    """{name: (path, reader)} of a file of each kind."""
    import torch
    from safetensors.numpy import save_file

    weights = {f"layer{i}": array for i, array in enumerate(network.get_weights())}
    described.write(folder / "a.weights.h5", network, helpers.tiny(), None, ("a", "b", "c"))
    network.save(folder / "a.keras")
    save_file(weights, folder / "a.safetensors")
    torch.save({name: torch.from_numpy(array) for name, array in weights.items()}, folder / "a.pth")
    torch7.save(folder / "a.t7", torch7.preresnet(**TINY_TORCH7))
    (folder / "config.json").write_text(json.dumps({"architecture": "resnetv2_18", "pretrained_cfg": {"mean": [0.5]}}))
    (folder / runs.RUN).write_text(json.dumps(run))
    with open(folder / runs.LOG, "w", newline="") as file:
        writer = csv.DictWriter(file, LOG[0])
        writer.writeheader()
        writer.writerows(LOG)
    return {
        "a.weights.h5": described.about, "a.keras": files.read, "a.safetensors": importers.files.safetensors,
        "a.pth": importers.files.torch, "a.t7": lambda path: importers.torch7.load(path, ""),
        "config.json": importers.files.config, runs.RUN: lambda path: runs.read_run(path.parent),
        runs.LOG: runs.read_log,
    }


def test_whole_files_are_called_what_they_are(network, run, tmp_path):
    whole_files(tmp_path, network, run)
    called = {
        "a.weights.h5": "an HDF5 file", "a.keras": "a .keras file", "a.safetensors": "a safetensors file",
        "a.pth": "a PyTorch file", "a.t7": "a Torch7 file", "config.json": None, runs.LOG: None,
    }
    assert {name: kinds.kind_of(tmp_path / name) for name in called} == called


def test_files_damaged_at_random(network, run, tmp_path):
    rng = np.random.default_rng(0)
    for name, read in whole_files(tmp_path, network, run).items():
        path = tmp_path / name
        content = path.read_bytes()
        read(path)
        for _ in range(TRIES):
            damaged = bytearray(content[:rng.integers(1, len(content))] if rng.random() < 0.3 else content)
            for place in rng.integers(0, len(damaged), rng.integers(1, 4)):
                damaged[place] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            try:
                read(path)
            except ValueError as error:
                assert str(path) in str(error), (name, error)
            except (pickle.UnpicklingError, Exception) as error:
                raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        path.write_bytes(content)
