"""What importers do with files that are damaged, incomplete, renamed, of other networks, or that want to run code."""
import argparse
import functools
import json
import pickle
import struct
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from helpers import randomize

from keras_preact import cli
from keras_preact.data.preprocessing import LABELS
from keras_preact.zoo import importers

torch = pytest.importorskip("torch")
import peers  # noqa: E402
import torch7  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resnetv2_18.a1h_in1k")
    timm = peers.timm()
    timm.models.save_for_hf(peers.randomize(timm.create_model("resnetv2_18")), folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def state(folder):
    return importers.files.safetensors(folder / "model.safetensors")


def refused(source, weights, *patterns, name=None, error=ValueError):
    with pytest.raises(error) as caught:
        importers.convert(source, weights, name)
    message = str(caught.value)
    for pattern in patterns:
        assert pattern in message, message


def without(state, *parts):
    return {name: tensor for name, tensor in state.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize("missing", [
    "stem.conv.weight", "stages.2.blocks.1.norm2.running_var", "stages.1.blocks.0.downsample.conv.weight",
    "head.fc.bias", "head.fc.weight", "stages.0.blocks.0.conv1.weight", "norm.bias",
])
def test_a_missing_tensor_is_named(state, missing):
    refused("timm", without(state, missing), "nothing was loaded", f"{missing}: missing")


def test_a_missing_unit_is_named(state):
    refused("timm", without(state, "stages.2.blocks.0."), "stages.2.blocks.0.conv1.weight: missing")
    refused("timm", without(state, "stages.1."), "stages.1.blocks.0.conv1.weight: missing")


def test_missing_units_at_the_end_leave_no_network_of_the_zoo(state):
    refused("timm", without(state, "stages.2.blocks.1."), "(2, 2, 1, 2) basic units", "may be incomplete")
    refused("timm", without(state, "stages.3."), "(2, 2, 2) basic units")


def test_a_renamed_tensor_is_named_under_both_names(state):
    renamed = without(state, "norm.weight") | {"norm.gamma": state["norm.weight"]}
    refused("timm", renamed, "norm.gamma: not a tensor of these networks")
    inner = {f"inner.{name}": tensor for name, tensor in state.items()}
    refused("timm", inner, "inner.head.fc.bias: not a tensor of these networks", "more")


def test_a_tensor_of_another_shape_is_named(state):
    refused("timm", state | {"stages.0.blocks.1.conv2.weight": np.zeros((64, 32, 3, 3), "float32")},
            "stages.0.blocks.1.conv2.weight: expected 3x3x64x64 in Keras's order, found 3x3x32x64")


def test_a_tensor_that_is_none_is_named(state):
    refused("timm", state | {"stem.conv.weight": np.zeros(64, "float32")},
            "stem.conv.weight: 4 axes of floats expected, found shape (64,) of float32")
    refused("timm", state | {"norm.bias": np.zeros(512, "int64")},
            "norm.bias: 1 axes of floats expected, found shape (512,) of int64")


def test_a_tensor_too_many_is_named(state):
    refused("timm", state | {"stem.conv.bias": np.zeros(64, "float32")},
            "stem.conv.bias: the network has no place for it")
    refused("timm", state | {"fc.weight": np.zeros((2, 2), "float32")}, "fc.weight: not a tensor")


def test_not_a_state_dict(state):
    refused("timm", {"epoch": 3, "weights": state}, "Received: int epoch, dict weights")
    refused("timm", {"net": state, "model": state}, "Received: dict net, dict model")


@pytest.mark.parametrize("size", [0, 4, 100, 5_000, 1_000_000])
def test_a_truncated_safetensors_file(folder, tmp_path, size):
    file = tmp_path / "model.safetensors"
    file.write_bytes((folder / "model.safetensors").read_bytes()[:size])
    refused("timm", file, "cannot be read as a safetensors file", str(file))


def test_a_safetensors_header_that_lies(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes((10**15).to_bytes(8, "little") + b"{}")
    refused("timm", file, "cannot be read as a safetensors file")


@pytest.mark.parametrize("wrap", [
    lambda state: state, lambda state: {"state_dict": state, "epoch": 3}, lambda state: {"model": state},
    lambda state: {"state_dict": {name: 0 * tensor for name, tensor in state.items()}, "state_dict_ema": state},
    lambda state: {"model_state_dict": {f"module.model.{name}": tensor for name, tensor in state.items()}},
    lambda state: {f"net._orig_mod.{name}": tensor for name, tensor in state.items()},
    lambda state: {
        "state_dict": state, "args": argparse.Namespace(lr=np.float64(0.1), path=Path("a")),
        "best": np.float32(1), "losses": np.zeros(3),
    },
], ids=range(7))
def test_a_pth_file_of_timm_is_read_whatever_is_around(wrap, folder, state, tmp_path):
    held = {name: torch.from_numpy(tensor.copy()) for name, tensor in state.items()}
    torch.save(wrap(held), tmp_path / "timm.pth.tar")
    upstream = importers.timm.load(tmp_path / "timm.pth.tar", "resnetv2_18")
    assert upstream.tensors.keys() == state.keys()
    for name, tensor in upstream.tensors.items():
        np.testing.assert_array_equal(tensor, state[name])


def test_a_folder_of_timm_from_before_safetensors(folder, state, tmp_path):
    held = {name: torch.from_numpy(tensor.copy()) for name, tensor in state.items()}
    torch.save(held, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    model, report = importers.convert("timm", tmp_path)
    np.testing.assert_array_equal(
        model.get_layer("stem_conv").get_weights()[0], state["stem.conv.weight"].transpose(2, 3, 1, 0)
    )
    assert report.preprocessing is not None


@pytest.mark.parametrize("change, pattern", [
    ({"architecture": "resnetv2_50d"}, "resnetv2_18, resnetv2_34, resnetv2_50, resnetv2_101, resnetv2_152. Received: "
                                       "resnetv2_50d"),
    ({"architecture": "resnetv2_50"}, "18 layers: 50 layers are expected"),
    ({"model_args": {"output_stride": 8}}, "Received: resnetv2_18 with other output_stride"),
    ({"global_pool": "max"}, "with other global_pool"),
])
def test_a_timm_config_of_another_network(folder, tmp_path, change, pattern):
    config = json.loads((folder / "config.json").read_text())
    config.pop("model_args")
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    refused("timm", tmp_path, pattern)


@pytest.mark.parametrize("content", ["{", "[1]", "3"])
def test_a_damaged_timm_config(folder, tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    refused("timm", tmp_path, "config.json cannot be read as a timm configuration file")


@pytest.mark.parametrize("change", [{"input_size": [3, 30000, 30000]}, {"label_names": {"a": "cat"}}])
def test_a_timm_config_of_values_that_cannot_be(change, folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    refused("timm", tmp_path, str(tmp_path / "config.json"))


def test_a_timm_config_that_tells_less(folder, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnetv2_18", "pretrained_cfg": {"mean": [0]}}))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    assert importers.convert("timm", tmp_path)[1].preprocessing is None


def test_group_normalization_is_refused():
    model = peers.timm().create_model("resnetv2_50x1_bit", num_classes=5)
    refused("timm", model.state_dict(), "stages.0.blocks.0.norm1.running_mean: missing")


class Bomb:
    def __reduce__(self):
        return functools.partial(print, "boom"), ()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_a_pickle_that_wants_code_is_refused(tmp_path, capsys):
    file = tmp_path / "preresnet18.pth"
    torch.save({"output.weight": Bomb()}, file)
    refused("pytorchcv", file, "is refused: it holds Python objects, which run code when they are read")
    file.write_bytes(pickle.dumps(Bomb()))
    refused("pytorchcv", file, "is refused: it holds Python objects")
    assert capsys.readouterr().out == ""


def test_pth_files_of_every_age(tmp_path):
    state = {"output.weight": torch.arange(6.0).reshape(2, 3)}
    for zipped in (False, True):
        torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        tensors = importers.files.safetensors_or_torch(tmp_path / "a.pth")
        np.testing.assert_array_equal(tensors["output.weight"], [[0, 1, 2], [3, 4, 5]])


def test_pth_files_of_parameters_and_of_half_precision(tmp_path):
    halves = torch.arange(6.0).reshape(2, 3) / 4
    state = {"a": torch.nn.Parameter(halves), "b": halves.to(torch.bfloat16), "c": halves.half()}
    torch.save(state, tmp_path / "a.pth")
    for tensor in importers.files.torch(tmp_path / "a.pth").values():
        np.testing.assert_array_equal(tensor, [[0, 0.25, 0.5], [0.75, 1, 1.25]])


def test_a_pth_file_of_something_else(tmp_path):
    file = tmp_path / "preresnet18.pth"
    torch.save([1, 2], file)
    refused("pytorchcv", file, "A state dict", "Received: list", str(file))
    torch.save({"output.weight": np.float32(1)}, file)
    refused("pytorchcv", file, "A state dict", "Received: _PassedOver output.weight")


@pytest.mark.parametrize("size", [0, 10, 1_000])
def test_a_truncated_pth_file(tmp_path, size):
    file = tmp_path / "preresnet18.pth"
    torch.save({"output.weight": torch.zeros(1000)}, file)
    file.write_bytes(file.read_bytes()[:size])
    refused("pytorchcv", file, str(file), "damaged")


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory):
    tf_keras = pytest.importorskip("tf_keras")
    file = tmp_path_factory.mktemp("keras") / "resnet50v2.h5"
    tf_keras.applications.ResNet50V2(weights=None, classes=5).save_weights(file)
    return file


def test_a_truncated_h5_file(keras_file, tmp_path):
    file = tmp_path / "resnet50v2.h5"
    file.write_bytes(keras_file.read_bytes()[:100_000])
    refused("keras_applications", file, "cannot be read as a Keras 1 or 2 file", "damaged")


def test_names_in_parts(keras_file, tmp_path):
    file = tmp_path / "resnet50v2.h5"
    file.write_bytes(keras_file.read_bytes())
    with h5py.File(file, "r+") as h5:
        names = h5.attrs["layer_names"]
        del h5.attrs["layer_names"]
        h5.attrs["layer_names0"], h5.attrs["layer_names1"] = names[:100], names[100:]
    whole, parts = importers.files.h5(keras_file), importers.files.h5(file)
    assert list(whole) == list(parts) and len(whole) > 250
    with h5py.File(file, "r+") as h5:
        del h5.attrs["layer_names0"], h5.attrs["layer_names1"]
    refused("keras_applications", file, "/ has no layer_names")


def test_weights_of_another_network_or_another_zoo(keras_file, folder, tmp_path):
    refused("image_classifiers", keras_file, "conv1_conv.bias: not a tensor", "conv0.kernel: missing", "and 265 more")
    refused("keras_applications", keras_file, "50 layers: 101 layers are expected", name="resnet101v2")
    other = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3))
    refused("keras_applications", other, "the given Functional does not hold the weights", "conv1.kernel: not a tensor")


def test_original_units_are_refused():
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3))
    refused("keras_applications", model, "conv1_bn.beta: not a tensor of these networks")


@pytest.mark.parametrize("source, weights, error, pattern", [
    ("tim", "x", ValueError, "`source` must be one of 'timm', 'keras_applications', "),
    ("timm", "nowhere/model.safetensors", ValueError, "nowhere/model.safetensors does not exist"),
    ("torch7", {}, TypeError, "must be what 'torch7' publishes, such as a path. Received: {}"),
    ("keras_applications", {}, TypeError, "such as a path"),
])
def test_other_arguments(source, weights, error, pattern):
    refused(source, weights, pattern, error=error)


def test_an_output_of_another_kind(folder):
    with pytest.raises(ValueError, match="`output` must name a .weights.h5 file. Received: x.h5"):
        importers.convert("timm", folder, output="x.h5")


def test_a_missing_library_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    refused("timm", folder, "install safetensors: pip install safetensors", error=ImportError)


# Torch7

TINY = {"units": (1, 1, 1), "widths": (4, 6, 8), "imagenet": False}


def t7(path, change=None, **network):
    module = torch7.preresnet(**TINY | network)
    if change:
        change(module)
    torch7.save(path, module)
    return path


def child(module, *path):
    for i in path:
        module = module.fields["modules"][i]
    return module


def test_the_reader_agrees_with_torchfile(tmp_path):
    torchfile = pytest.importorskip("torchfile")
    path = t7(tmp_path / "a.t7")
    theirs, ours = torchfile.load(str(path)), importers.torch7._Reader(path).object()

    def compare(theirs, ours):
        assert theirs.torch_typename().decode().split(".")[1] == ours.kind
        for key, value in ours.fields.items():
            if key == "modules":
                for i, module in enumerate(theirs[key]):
                    compare(module, value[i + 1])
            elif isinstance(value, np.ndarray):
                np.testing.assert_array_equal(theirs[key], value)
            else:
                assert theirs[key] == (value.encode() if isinstance(value, str) else value)

    compare(theirs, ours)


@pytest.mark.parametrize("change, pattern", [
    (lambda m: child(m, 1).fields.update(dW=2), "module 1: SpatialConvolution 3x3, stride 1, padding 1 expected, "
                                                "SpatialConvolution 3x3, stride 2 by 1, padding 1 found"),
    (lambda m: child(m, 2, 1, 1).fields.update(eps=1e-3), "SpatialBatchNormalization, epsilon 1e-05 found"),
    (lambda m: child(m, 2, 1, 3, 1).fields["modules"].pop(4), "module 2.1.3.2: SpatialConvolution 3x3, stride 1, "
                                                              "padding 1 expected, Identity found"),
    (lambda m: m.fields["modules"].pop(5), "module 5: SpatialBatchNormalization"),
    (lambda m: m.fields["modules"].update({10: torch7.Module("nn.LogSoftMax")}), "module 10: nothing expected"),
    (lambda m: child(m, 9).fields.pop("weight"), "9.weight: missing"),
    (lambda m: child(m, 9).fields.update(weight=3), "9.weight: missing"),
    (lambda m: child(m, 2).fields.update(modules=3), "stage1_unit1_conv1.weight: missing"),
    (lambda m: child(m, 2, 1).fields.update(modules="text"), "module 3: SpatialBatchNormalization"),
    (lambda m: child(m, 1).fields.update(kW=np.ones(4)), "SpatialConvolution ndarray by 3xndarray by 3, stride 1"),
    (lambda m: child(m, 1).fields.update(bias=np.ones(4, "float32")), "1.bias: the network has no place for it"),
], ids=range(11))
def test_another_tree_is_refused(tmp_path, change, pattern, monkeypatch):
    monkeypatch.setattr(importers.engine, "builder_name", lambda config: "PreActResNet20")
    refused("torch7", t7(tmp_path / "a.t7", change), pattern)


def test_torch7_files_of_something_else(tmp_path):
    path = tmp_path / "a.t7"
    for value in (None, 3, {"x": 1.5}, np.zeros(3, "float32"), torch7.Module("nn.Sequential")):
        torch7.save(path, value)
        refused("torch7", path, "does not hold a network of fb.resnet.torch")


def test_a_torch7_file_nested_without_end(tmp_path):
    path = tmp_path / "a.t7"
    path.write_bytes(b"".join(struct.pack("<3i", 3, i, 1) for i in range(1, 100_000)))
    refused("torch7", path, "cannot be read as a Torch7 file")


def test_a_torch7_file_cut_anywhere_or_with_any_byte_changed(tmp_path):
    content = t7(tmp_path / "a.t7").read_bytes()
    path = tmp_path / "b.t7"
    rng = np.random.default_rng(0)
    for size in rng.integers(0, len(content), 100):
        path.write_bytes(content[:size])
        refused("torch7", path, "cannot be read as a Torch7 file")
    for place in rng.integers(0, len(content), 300):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            importers.torch7.load(path, "")
        except ValueError:
            pass


def test_the_command_converts_and_reports(folder, tmp_path, capsys):
    output = tmp_path / "r18.weights.h5"
    assert cli.main(["convert", "timm", str(folder), "--output", str(output)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("PreActResNet18 from timm: 11,") and f"PreActResNet18(weights={str(output)!r})" in out
    image = Path(__file__).parent.parent / "examples" / "images" / "cat_0000.png"
    assert cli.main(["classify", str(image), "--model", "PreActResNet18", "--weights", str(output)]) == 0
    assert capsys.readouterr().out.split("  ")[1].rsplit(" ", 1)[0] in LABELS["imagenet"]
    assert cli.main(["convert", "timm", str(tmp_path / "none"), "--output", str(output)]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_randomize_is_of_both_signs():
    model = keras.Sequential([keras.layers.Input((4, 4, 64)), keras.layers.BatchNormalization()])
    randomize(model, 0)
    gamma = np.asarray(model.layers[0].gamma)
    assert (gamma > 0).any() and (gamma < 0).any()
