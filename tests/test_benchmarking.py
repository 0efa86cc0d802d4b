"""The benchmark: names and arithmetic by hand, what its contestants do, and one run of it."""
import importlib.util
import json
import os
import re
import subprocess
import sys

import helpers
import keras
import numpy as np
import pytest

from keras_preact import cli
from keras_preact.benchmarking import comparison as benchmarking, contestants, peers
from keras_preact.benchmarking.comparison import FirstStep, Measurement
from keras_preact.training import engine as training
from keras_preact.training.optimizers import SGD
from keras_preact.zoo import builders as models


def test_ratios_are_taken_round_by_round():
    first = Measurement("a", speeds={8: [100.0, 50.0, 80.0]})
    other = Measurement("b", speeds={8: [50.0, 100.0, 120.0]})
    assert other.ratios(first, 8) == [0.5, 2.0, 1.5]
    assert benchmarking.summary([first, other]) == [
        ("a", "8", "80.0", "1.00 (1.00 to 1.00)"), ("b", "8", "100.0", "1.50 (0.50 to 2.00)"),
    ]


def test_what_failed_has_no_line_and_nothing_is_compared_with_it(tmp_path):
    first, failed = Measurement("a", speeds={1: [8.0]}, error="why"), Measurement("b", error="why")
    other = Measurement("c", speeds={1: [4.0], 8: [50.0]})
    found = [first, failed, other]
    assert benchmarking.summary(found) == [
        ("a", "1", "8.0", "1.00 (1.00 to 1.00)"), ("c", "1", "4.0", "0.50 (0.50 to 0.50)"), ("c", "8", "50.0", "-"),
    ]
    benchmarking.plot(found, tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


def test_first_steps_are_compared_with_the_first_of_their_batch():
    a, b = FirstStep("a", 2, 1.0, 3.0, 0.5, 10**9), FirstStep("b", 2, 2.0, 6.0, 0.25, 2 * 10**9)
    slower = FirstStep("b", 4, 1.0, 1.0, 0.5, 10**9)
    assert benchmarking.summary_of_first_steps([a, b, FirstStep("a", 4, error="why"), slower]) == [
        ("a", "2", "1.00", "3.00", "1.00", "0.50", "1.00"), ("b", "2", "2.00", "6.00", "2.00", "0.25", "2.00"),
        ("b", "4", "1.00", "1.00", "-", "0.50", "1.00"),
    ]


def test_names_say_library_network_forms_and_backend():
    assert contestants.parsed("PreActResNet20", "train") == ("", "PreActResNet20", [], "")
    assert contestants.parsed("PreActResNet20:looped:rematerialized@jax", "train") == (
        "", "PreActResNet20", ["looped", "rematerialized"], "jax")
    assert contestants.parsed("keras.applications:ResNet50V2:simplified", "predict") == (
        "keras.applications", "ResNet50V2", ["simplified"], "")
    assert contestants.parsed("pytorchcv:preresnet20_cifar10", "train") == ("pytorchcv", "preresnet20_cifar10", [], "")


@pytest.mark.parametrize("names, arguments, message", [
    (["PreActResNet20", "PreActResNet21"], {}, "`name` must be one of .*Received: 'PreActResNet21'; did you mean"),
    (["PreActResNet20:simplified:onnx"], {}, "are forms by themselves"),
    (["keras.applications:ResNet50V2:fast"], {}, "`form` must be one of 'simplified', 'onnx', .* Received: 'fast'"),
    (["keras.applications:ResNet50V2:looped"], {"work": "train"}, "`form` must be one of 'plain'. Received: 'looped'"),
    (["PreActResNet20:simplified"], {"work": "train"}, "`form` must be one of 'plain', 'looped'.* 'simplified'"),
    (["PreActResNet20:plain:looped"], {"work": "train"}, "'plain' and .* are forms by themselves.*:plain:looped'"),
    (["PreActResNet20:looped:unrolled"], {"work": "train"}, "nothing is looped and unrolled. Received"),
    (["PreActResNet20@pytorch"], {}, "`backend` must be one of .*Received: 'pytorch'; did you mean 'torch'"),
    (["PreActResNet20@"], {}, "`backend` must be one of .*Received: ''"),
    (["pytorchcv:preresnet20_cifar10"], {}, "Networks of pytorchcv are trained.*--train.*'pytorchcv:preresnet20_cif"),
    (["pytorchcv:preresnet20_cifar10@jax"], {"work": "train"}, "without form and backend. Received: 'pytorchcv:preres"),
    (["PreActResNet20"], {"work": "rest"}, "`work` must be one of 'predict', 'train'. Received: 'rest'"),
    (["PreActResNet20"], {"work": "train", "precision": "float16"}, "`precision` must be one of .*'float16'"),
    (["PreActResNet20"], {"precision": "mixed_bfloat16"}, "`precision` is of training: .*Received: 'mixed_bfloat16'"),
])
def test_unknown_contestants_and_works_are_refused(names, arguments, message):
    with pytest.raises(ValueError, match=message):
        benchmarking.compare(names, **arguments)


def test_missing_packages_come_with_the_command_that_installs_them(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    found = benchmarking.compare(
        ["PreActResNet20@jax", "pytorchcv:preresnet20_cifar10"], (2,), "train", progress=lambda text: None)
    assert [m.error for m in found] == [
        "it needs jax, which is missing: pip install jax",
        "it needs pytorchcv and torch, which is missing: pip install pytorchcv torch",
    ]
    monkeypatch.undo()
    assert cli.main(["benchmark", "keras.applications:VGG99", "--train", "--batch-size", "2", "--rounds", "1"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(
        "keras-preact: keras.applications:VGG99: AttributeError: module 'keras.applications' has no attribute 'VGG99'")


@pytest.mark.parametrize("precision", [helpers.slow("float32"), "mixed_bfloat16"])
def test_plain_training_is_keras_alone(precision):
    plain = contestants.Trainer("PreActResNet20:plain", 8, precision)
    plain.build()
    assert type(plain.model.optimizer) is keras.optimizers.SGD
    assert all(type(part).__module__.startswith("keras.") for part in (plain.model, *plain.model.layers))
    assert plain.model.optimizer.nesterov and plain.model.optimizer.weight_decay == 1e-4
    assert plain.model.get_layer("stage1_unit1_conv1").compute_dtype == precision.removeprefix("mixed_")
    assert keras.config.dtype_policy().name == "float32"
    before = plain.model.get_weights()
    assert plain.seconds(2, 2) > 0
    assert int(plain.model.optimizer.iterations) == 2
    assert any((old != new).any() for old, new in zip(before, plain.model.get_weights()))


@pytest.mark.parametrize("ending, fields", [
    ("", {}),
    (":unrolled", {"loop": False}),
    (":looped", {"loop": True}),
    (":rematerialized", {"loop": False, "rematerialize": True}),
    (":looped:rematerialized", {"loop": True, "rematerialize": True}),
])
def test_without_plain_the_engine_trains(ending, fields, monkeypatch):
    engines, compiled = [], training.compiled
    monkeypatch.setattr(training, "compiled", lambda *args: (engines.append(args[4]), compiled(*args))[1])
    ours = contestants.Trainer(f"PreActResNet20{ending}", 8, "mixed_bfloat16")
    ours.build()
    assert engines == [training.Engine(precision="mixed_bfloat16", **fields)]
    optimizer = ours.model.optimizer
    assert type(optimizer) is SGD and optimizer.nesterov and optimizer.l2 == 1e-4 and optimizer.momentum == 0.9
    assert ours.model.output_shape == (None, 10)


def test_a_batch_that_replicas_cannot_share_is_refused():
    two = contestants.Trainer("PreActResNet20:mirrored", 8, "float32")
    with pytest.raises(ValueError, match=r"over 2 replicas.*--batch-size\) must be multiples of 2. Received: 1"):
        two.seconds(1, 1)


@pytest.fixture
def peer():
    pytest.importorskip("pytorchcv")
    return peers.TorchTrainer("preresnet20_cifar10", 32, "float32")


@pytest.mark.parametrize("theirs, ours, more", [
    # Theirs have projections where the shape changes, of 16 by 32 and 32 by 64 weights.
    ("preresnet20_cifar10", "PreActResNet20", 16 * 32 + 32 * 64),
    ("preresnet110_cifar10", "PreActResNet110", 16 * 32 + 32 * 64),
    ("preresnet164bn_cifar10", "PreActResNet164", 0),
    # Theirs normalizes the pooled stem once more.
    ("preresnet50", "PreActResNet50", 2 * 64),
])
def test_the_peers_have_as_much_to_train(theirs, ours, more, peer):
    peer.network = theirs
    peer.build()
    model = getattr(models, ours)(weights=None)
    count = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert sum(parameter.numel() for parameter in peer.model.parameters()) == count + more
    assert all(p.requires_grad for p in peer.model.parameters())


def test_the_peers_step_is_nesterovs_with_weight_decay(peer):
    import torch

    torch.manual_seed(0)
    assert peer.build()["backend"] == "torch"
    weight = peer.model.output.weight
    before = weight.detach().clone()
    seen = []
    peer.model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert peer.seconds(4, 1) > 0
    images, _ = peers.one_batch(4, 32, 10)
    np.testing.assert_array_equal(seen[0].cpu().numpy(), images.transpose(0, 3, 1, 2))
    assert peer.model.training and seen[0].is_contiguous(memory_format=torch.channels_last)
    # The momentum is the gradient after one step; Nesterov's step is that and 0.9 times it.
    step = 0.1 * 1.9 * (weight.grad + 1e-4 * before)
    torch.testing.assert_close(weight.detach(), before - step)
    conv = peer.model.features.stage1.unit1.body.conv2.conv.weight
    assert conv.is_contiguous(memory_format=torch.channels_last)
    assert torch.get_num_threads() == os.cpu_count()
    images, labels = seen[0], torch.arange(4).to(peer.device)
    losses = [peer.step(images, labels) for _ in range(4)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("precision, dtype", [
    ("float32", "float32"), ("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16"),
])
def test_the_peer_computes_in_the_asked_precision(precision, dtype, peer):
    import torch

    peer.precision = precision
    peer.build()
    seen = []
    for module in peer.model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    before = peer.model.output.weight.detach().clone()
    peer.seconds(2, 1)
    assert set(seen) == {getattr(torch, dtype)}
    assert {p.dtype for p in peer.model.parameters()} == {torch.float32}
    assert not torch.equal(before, peer.model.output.weight)


def test_unknown_peers_are_refused(peer):
    peer.network = "preresnet21_cifar10"
    with pytest.raises(ValueError, match="pytorchcv has no such network .*Received: 'preresnet21_cifar10'"):
        peer.build()


@pytest.mark.slow
def test_what_predicts_is_compared_in_processes_of_their_own(tmp_path, capsys):
    pytest.importorskip("openvino")
    arguments = ["benchmark", "PreActResNet20", "PreActResNet20:simplified", "PreActResNet20:openvino"]
    arguments += ["--batch-size", "2", "--rounds", "2"]
    arguments += ["--size", "8", "--seconds", "0.1"]
    assert cli.main([*arguments, "--json", str(tmp_path / "b.json"), "--plot", str(tmp_path / "b.png")]) == 0
    for found in json.loads((tmp_path / "b.json").read_text()):
        assert found["build"] > 0 and found["load"] > 0 and found["first_call"] > 0 and found["memory"] > 1e8
        assert len(found["speeds"]["2"]) == 2
    assert "PreActResNet20:simplified" in capsys.readouterr().out
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


def test_what_none_can_take_is_told_in_one_line(capsys):
    assert cli.main(["benchmark", "PreActResNet20", "--size", "1", "--rounds", "1"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"keras-preact: PreActResNet20: .* at least 4 pixels .*\(1, 1, 3\)\n", err)


@pytest.mark.slow
def test_training_is_compared_over_backends_and_with_torch_in_whole_lines_and_quietly(tmp_path):
    names = [
        "PreActResNet20@torch", "PreActResNet20:plain@jax", "PreActResNet20:mirrored@tensorflow",
        "pytorchcv:preresnet20_cifar10",
    ]
    arguments = [*names, "--against", "PreActResNet20:plain", "--train"]
    arguments += ["--batch-size", "2", "--rounds", "2", "--seconds", "0.01", "--json", str(tmp_path / "b.json")]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "keras_preact.cli", "benchmark", *arguments], capture_output=True, text=True,
        env=environment | {"COLUMNS": "40"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    names = ["PreActResNet20:plain", *names]
    lines = [line.split(maxsplit=3) for line in done.stdout.splitlines() if "(" in line]
    assert [line[:2] for line in lines] == [[name, "2"] for name in names]
    assert lines[0][3].strip() == "1.00 (1.00 to 1.00)"
    found = json.loads((tmp_path / "b.json").read_text())
    assert [m["backend"] for m in found] == [keras.backend.backend(), "torch", "jax", "tensorflow", "torch"]
    assert all(len(m["speeds"]["2"]) == 2 and m["memory"] > 1e8 and not m["error"] for m in found)


@pytest.mark.slow
def test_first_steps_of_each_form(tmp_path, capsys):
    names = ["PreActResNet20:plain", "PreActResNet20:looped:rematerialized"]
    arguments = ["--first-step", "--batch-size", "2", "--size", "8", "--json", str(tmp_path / "b.json")]
    assert cli.main(["benchmark", *names, *arguments, "--plot", str(tmp_path / "b.png")]) == 0
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    plain, looped = json.loads((tmp_path / "b.json").read_text())
    assert [plain["name"], looped["name"]] == names
    for found in (plain, looped):
        assert found["build"] > 0 and found["first_step"] > found["step"] > 0 and found["memory"] > 1e8
    assert "first" in capsys.readouterr().out.lower()
    with pytest.raises(ValueError, match="`form` must be one of 'plain', 'looped'.*Received: 'rolled'"):
        benchmarking.first_steps(["PreActResNet20:rolled"])
