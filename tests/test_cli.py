"""The console command, as a user meets it."""
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_preact as kp
from keras_preact import cli
from keras_preact.cli import common
from keras_preact.paper.experiments import EXPERIMENTS
from keras_preact.zoo.hub import HubError

IMAGES = Path(__file__).parent.parent / "examples" / "images"


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def test_classify_prints_a_line_for_each_image_and_nothing_else():
    environment = {k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND")}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # ASCII alone
    done = subprocess.run(
        [sys.executable, "-m", "keras_preact.cli", "classify", IMAGES], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 12
    right = 0
    for line in lines:
        name, *probabilities = re.fullmatch(r".*?(\w+)_\d{4}\.png" + r"\s+([a-z]+) ([\d.]+)%" * 3, line).groups()
        assert [float(p) for p in probabilities[1::2]] == sorted((float(p) for p in probabilities[1::2]), reverse=True)
        right += probabilities[0] == name
    assert right >= 10


def test_a_folder_of_images_is_read_without_its_pipes(tmp_path, capsys):
    (tmp_path / "frog.png").symlink_to(IMAGES / "frog_0004.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert cli.main(["classify", "--top", "1", str(tmp_path)]) == 0
    assert re.fullmatch(r".*frog\.png\s+frog [\d.]+%\n", capsys.readouterr().out)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_name_that_is_no_text_does_not_stop_the_others(encoding, tmp_path, monkeypatch):
    for name in b"caf\xe9.png", "größe.png".encode():
        os.link(IMAGES / "frog_0004.png", os.path.join(os.fsencode(tmp_path), name))
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr("sys.stdout", out)
    assert cli.main(["classify", "--top", "1", str(tmp_path)]) == 0
    out.seek(0)
    assert re.fullmatch(rf"{tmp_path}/caf\S+\s+frog [\d.]+%\n{tmp_path}/gr\S+e\.png\s+frog [\d.]+%\n", out.read())


@pytest.mark.parametrize("verb", ["classify", "explain"])
def test_logits_are_no_probabilities(verb, tmp_path, capsys):
    model, cat = kp.PreActResNet20(weights="cifar10", classifier_activation=None), IMAGES / "cat_0000.png"
    model.save(tmp_path / "logits.keras")
    arguments = [verb, str(cat), "--model", str(tmp_path / "logits.keras")]
    arguments += ["--output", str(tmp_path / "cat.png")] if verb == "explain" else []
    assert cli.main(arguments) == 2
    assert "does not say what its 10 outputs mean" in capsys.readouterr().err
    logits = model.predict_on_batch(kp.preprocess_input(kp.load_image(cat, model), model)[None])[0]
    for activation, share in (
        ("softmax", np.exp(logits[3]) / np.exp(logits).sum()), ("sigmoid", 1 / (1 + np.exp(-logits[3]))),
    ):
        assert cli.main([*arguments, "--activation", activation]) == 0
        assert f"  cat {share:.1%}" in capsys.readouterr().out
    with kp.predictor(model, "keras", activation="softmax") as predict:
        np.testing.assert_allclose(predict(cat)[0], np.exp(logits) / np.exp(logits).sum(), atol=1e-5)
    with pytest.raises(ValueError, match="has its `activation` inside: leave it out. Received: 'softmax'"):
        kp.predictor("a.onnx", activation="softmax")


def test_what_cannot_be_read_is_named_and_the_rest_is_classified(tmp_path, capsys):
    broken, missing = tmp_path / "broken.png", tmp_path / "missing.png"
    broken.write_bytes((IMAGES / "cat_0000.png").read_bytes()[:500])
    status = cli.main(["classify", "--top", "1", str(broken), str(IMAGES / "frog_0004.png"), str(missing)])
    out, err = capsys.readouterr()
    assert status == 1
    assert re.fullmatch(r".*frog_0004\.png\s+frog [\d.]+%\n", out)
    assert f"{broken}: cannot be read as an image: " in err and f"{missing}: cannot be read as an image: " in err
    assert "2 of 3 files could not be read." in err


def test_other_files_in_a_folder_are_passed_over(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no image")
    Image.new("L", (50, 40), 128).save(tmp_path / "grey.bmp")
    assert cli.main(["classify", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_classify_reads_standard_input_and_writes_json(tmp_path, capsys, monkeypatch):
    class StandardInput:
        buffer = io.BytesIO((IMAGES / "frog_0004.png").read_bytes())

    monkeypatch.setattr("sys.stdin", StandardInput)
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    assert cli.main(["classify", "--json", "--top", "2", "-", str(broken)]) == 1
    found = {line["file"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    first, second = found["-"]["predictions"]
    assert first["label"] == "frog" and 0.9 < first["probability"] <= 1 and second["probability"] < 0.1
    assert set(found[str(broken)]) == {"file", "error"} and len(found) == 2


def test_export(tmp_path, capsys):
    pytest.importorskip("tensorflow")
    base = tmp_path / "models" / "preact"
    arguments = ["export", "PreActResNet20", "--weights", "cifar10", "--output", str(base)]
    assert cli.main(arguments) == 0
    told = rf"{base}/1  [\d,]+ bytes, at most \de-0[67] from the Keras model\n"
    assert re.fullmatch(told, capsys.readouterr().out)
    arguments += ["--version", "1"]
    assert cli.main(arguments) == 2 and "exists already" in capsys.readouterr().err
    assert cli.main([*arguments, "--overwrite"]) == 0
    assert re.fullmatch(told, capsys.readouterr().out)


@pytest.mark.parametrize("arguments, message", [
    (["PreActResNet20"], "Give the weights of PreActResNet20: --weights TAG"),
    (["PreActResNet21", "--weights", "cifar10"], "Did you mean PreActResNet"),
    (["PreActResNet20", "--weights", "cifar10", "--format", "tflite"], "`format` must be one of 'savedmodel', 'onnx'"),
])
def test_exports_that_cannot_be_made(arguments, message, tmp_path, capsys):
    assert cli.main(["export", *arguments, "--output", str(tmp_path / "preact")]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments, message", [
    (["classify", "EMPTY"], "no image file in the folder EMPTY"),
    (["classify", "a.png", "--model", "PreActResNet21"], "'PreActResNet21'. Did you mean PreActResNet"),
    (["classify", "a.png", "--weights", "imagenet"],
     "'cifar10' of keras_preact, 8.06 % (last epoch); 'cifar10_paper' of keras_preact, 8.16 % (last epoch); "),
    (["classify", "a.png", "--model", "PreActResNet20"], "Give the weights of PreActResNet20: --weights"),
    (["classify", "a.png", "--model", "hf://owner/name", "--weights", "cifar10"], "has weights of its own: leave out"),
    (["show", "VGG"], "No model is named 'VGG'. `keras-preact list` and list_models() name them all."),
    (["list", "VGG*"], "No model is named 'VGG*'. There are: PreActResNet20"),
])
def test_wrong_commands_say_what_is_right(arguments, message, tmp_path, capsys):
    status = cli.main([str(tmp_path) if a == "EMPTY" else a for a in arguments])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("keras-preact: ") and message.replace("EMPTY", str(tmp_path)) in err


@pytest.mark.parametrize("arguments, message", [
    (["classify", "--top", "0", "a.png"], "Invalid value for '--top': 0 is not in the range x>=1."),
    (["train", "PreActResNet20", "--output", "run"], "Missing option '--data'"),
    (["reproduce", "table2", "--loop", "maybe"], "'maybe' is not one of 'auto', 'on', 'off'"),
    (["lisst"], "No such command 'lisst'"),
    (["list", "--jsn"], "--jsn"),
    ([], "Usage: keras-preact"),
])
def test_commands_that_cannot_be_read(arguments, message, capsys):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err


def test_help_of_every_verb(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    verbs = re.findall(r"^  ([a-z-]+)  ", out.split("Commands:")[1], re.MULTILINE)
    assert verbs == [
        "classify", "explain", "demo", "list", "show", "train", "fine-tune", "runs", "evaluate", "recipes", "convert",
        "pull", "push", "export", "reproduce", "report", "signals", "benchmark",
    ]
    assert "Shell completion" in out
    assert re.findall(r"^ +(\d+) +\w", out.split("Exit status:")[1], re.MULTILINE) == ["0", "1", "2", "130"]
    for verb in verbs:
        assert cli.main([verb, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: keras-preact {verb} ")


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"keras-preact, version {kp.__version__}\n"


def test_what_tells_what_there_is_loads_no_backend():
    code = """
import sys
from keras_preact import cli
for arguments in (["--help"], ["train", "--help"], ["list"], ["list", "--json"], ["show", "PreActResNet20"],
                  ["show", "PreActResNet164", "--json"], ["recipes"], ["recipes", "cifar_best", "--json"]):
    assert cli.main(arguments) == 0
print("loaded:", *sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split("loaded:")[-1].split()
    assert "click" in loaded and not {"keras", "tensorflow", "jax", "torch"} & set(loaded)


@pytest.mark.parametrize("file, installed, variable, started", [
    (None, {"tensorflow", "jax"}, None, None),  # which is Keras's own default
    (None, {"jax", "torch"}, None, "jax"),
    ('{"backend": "torch"}', {"tensorflow", "jax", "torch"}, None, None),
    ('{"backend": "torch"}', {"jax", "torch"}, None, None),
    ('{"backend": "tensorflow"}', {"jax", "torch"}, None, "jax"),
    ('{"backend": "numpy"}', {"jax"}, None, None),
    ('{"floatx": "float32"}', {"torch"}, None, "torch"),
    ("damaged", {"torch"}, None, "torch"),
    ('{"backend": "torch"}', {"jax", "torch"}, "jax", "jax"),
])
def test_the_backend(file, installed, variable, started, tmp_path, monkeypatch):
    """What the environment says, else keras.json, which Keras reads itself, else one that is installed."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", variable or "")  # so that it is as before afterwards
    if not variable:
        del os.environ["KERAS_BACKEND"]
    if file:
        (tmp_path / "keras.json").write_text(file)
    monkeypatch.setattr(common.importlib.util, "find_spec", lambda name: name in installed)
    monkeypatch.setattr(common.importlib, "import_module", lambda name: None)
    common.start_backend()
    assert os.environ.get("KERAS_BACKEND") == started


def test_completion(monkeypatch, capsys):
    for name, value in {"COMPLETE": "bash_complete", "COMP_WORDS": "keras-preact re", "COMP_CWORD": "1"}.items():
        monkeypatch.setenv(f"_KERAS_PREACT_{name}" if name == "COMPLETE" else name, value)
    with pytest.raises(SystemExit):
        cli.main([])
    assert capsys.readouterr().out == "plain,recipes\nplain,reproduce\nplain,report\n"


@pytest.mark.parametrize("error, status", [
    (ValueError("not so"), 2), (FileNotFoundError("not there"), 2), (IsADirectoryError("no file"), 2),
    (OSError("no room"), 1), (HubError("owner/name", None, "", "not reached", "Try again."), 1),
    (ImportError("not installed"), 1), (RuntimeError("failed"), 1), (KeyboardInterrupt(), 130),
])
def test_exit_statuses(error, status, monkeypatch, capsys):
    assert status in cli.STATUSES
    def fail(pattern):
        raise error

    monkeypatch.setattr(kp, "list_models", fail)
    assert cli.main(["list"]) == status
    assert capsys.readouterr().err.strip() == f"keras-preact: {str(error) or 'interrupted'}"
    if status != 130:
        assert cli.main(["--debug", "list"]) == status
        assert "in fail" in capsys.readouterr().err


def test_tables_are_as_wide_as_they_are_where_no_terminal_shows_them(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS")
    assert cli.main(["list", "PreActResNet20"]) == 0
    assert "cifar10 (8.06 %) bundled, cifar10_paper (8.16 %) bundled" in capsys.readouterr().out


def test_text_in_brackets_is_no_markup(capsys, tmp_path):
    (row,) = [row for row in EXPERIMENTS if row.table == "table4" and "[ours]" in row.row][:1]
    assert cli.main(["reproduce", "table4", "--list", "--output", str(tmp_path)]) == 0
    assert row.row in capsys.readouterr().out


def test_json(capsys):
    def read(*arguments):
        assert cli.main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    (network,) = read("list", "PreActResNet20")
    assert (network["name"], network["parameters"], network["input_size"]) == ("PreActResNet20", 269722, [32, 32])
    ours, *others = network["weights"]
    assert (ours["tag"], ours["error"], ours["where"], ours["source"]) == ("cifar10", 8.06, "bundled", "keras_preact")
    assert ours["licence"] == "Apache-2.0" and ours["measured"]["selection"] == "last epoch" and ours["size"] > 10**6
    (theirs,) = [weight for weight in others if weight["tag"] == "cifar10_tf2cv"]
    assert theirs == {
        "tag": "cifar10_tf2cv", "tags": ["cifar10_tf2cv"], "source": "pytorchcv", "dataset": "cifar10",
        "licence": "MIT", "citation": "Oleg Semery, tf2cv of github.com/osmr/imgclsmob", "error": 6.51, "size": None,
        "measured": {"error": 6.51, "top5_error": None, "crop": "32", "selection": "best epoch on the test set"},
        "hash": "sha1:d3e7771e923032393bb6fa88d62625f3da64d9fe", "where": "remote",
    }
    (theirs, facebook) = read("list", "PreActResNet200")[0]["weights"]
    assert theirs["tags"] == ["imagenet", "imagenet_tf2cv"] and facebook["tags"] == ["imagenet_torch7"]
    assert read("show", "PreActResNet20")["weights"][3]["source"] == "pytorchcv"
    shown = read("show", "PreActResNet20")
    assert shown["config"]["units"] == [3, 3, 3] and shown["total"]["parameters"] == 269722
    assert shown["stages"][1]["size"] == [32, 32] and shown["weights"][0]["made"]["epochs"] == 75
    assert {"cifar_paper", "imagenet_torch"} < {recipe["name"] for recipe in read("recipes")}
    assert read("recipes", "cifar_paper")["warmup_rate"] == 0.01


def test_list(capsys):
    assert cli.main(["list", "PreAct*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.strip().startswith("PreActResNet") for line in lines) == 22
    (row,) = [line for line in lines if "PreActResNet20 " in line]
    assert re.search(r"32x32 +269,722 +40,551,040 +cifar10 \(\d\.\d\d %\)", row)


def test_what_is_told_of_weights(capsys):
    assert cli.main(["show", "PreActResNet164"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "weights='cifar10' = 'cifar10_tf2cv': 3.64 % (best epoch on the test set), crop 32, remote" in out
    assert ("pytorchcv: Oleg Semery, tf2cv of github.com/osmr/imgclsmob; MIT; size unknown until it is fetched; "
            "sha1:29a459fad0f60028b48f1908970d3947728d76b0") in out
    assert cli.main(["list", "PreActResNet20"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "svhn = svhn_tf2cv (3.22 %) remote" in out
    assert "cifar10, cifar100, svhn: Oleg Semery, tf2cv of github.com/osmr/imgclsmob; MIT; error: best epoch" in out
    ours = "this package; the network is of He et al. 2016; Apache-2.0; error: last epoch"
    assert f"keras_preact, cifar10, cifar100: {ours}" in out


def test_show_is_the_stage_table(capsys):
    assert cli.main(["show", "PreActResNet50"]) == 0
    out = capsys.readouterr().out
    # Table 1 of [1]
    for stage, units, size in ((1, "64, 3x3 64, 1x1 256] x 3", 56), (2, "128, 3x3 128, 1x1 512] x 4", 28),
                               (3, "256, 3x3 256, 1x1 1024] x 6", 14), (4, "512, 3x3 512, 1x1 2048] x 3", 7)):
        assert re.search(rf"stage{stage} +\[1x1 {re.escape(units)} +{size}x{size} ", out)
    assert re.search(r"total +25,549,352 +4,089,184,256", out)


def training(folder):
    """The command that trains for two epochs on 32 of the 40 images of data.npz; both are in `folder`."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 3), dtype="uint8"), np.arange(40) % 4
    data = folder / "data.npz"
    np.savez(data, x_train=images[:32], y_train=labels[:32], x_test=images[32:], y_test=labels[32:])
    return [
        "train", "PreActResNet20", "--recipe", "cifar_short", "--data", str(data), "--output", str(folder / "run"),
        "--epochs", "2", "--batch-size", "16", "--set", "weight_decay=0.01", "--set", "warmup_steps=1",
    ]


def test_train_and_evaluate(tmp_path, capsys):
    arguments, data, run = training(tmp_path), str(tmp_path / "data.npz"), str(tmp_path / "run")
    assert cli.main(arguments) == 0
    (error,) = re.findall(r"([\d.]+) % test error after the last of 2 epochs", capsys.readouterr().out)
    recipe = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert (recipe["epochs"], recipe["batch_size"], recipe["weight_decay"]) == (2, 16, 0.01)

    plot = tmp_path / "confusion.png"
    assert cli.main(["evaluate", run, "--data", data, "--per-class", "--confusion", str(plot)]) == 0
    out = capsys.readouterr().out
    assert f"{error} % top-1 and 0.00 % top-5 error" in out and "of 8 test images of data, 8x8, views: single" in out
    assert len(re.findall(r"^  [0-3] +2 +[\d.]+", out, re.MULTILINE)) == 4 and plot.exists()

    assert cli.main(["evaluate", run, "--data", data, "--per-class", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["crop"], told["top1_error"]) == (8, [8, 8], 100 * told["wrong"] / 8)
    assert [row["images"] for row in told["per_class"]] == [2, 2, 2, 2] and told["published"] == []

    assert cli.main(["classify", str(IMAGES / "cat_0000.png"), "--model", run]) == 0
    assert re.fullmatch(r".*cat_0000\.png( +[0-3] [\d.]+%){3}\n", capsys.readouterr().out)
    assert cli.main(["export", run, "--output", str(tmp_path / "models" / "run")]) == 0
    labels = tmp_path / "models" / "run" / "1" / "assets" / "labels.txt"
    assert labels.read_text() == "0\n1\n2\n3\n"
    capsys.readouterr()

    assert cli.main([*arguments, "--seed", "2"]) == 2
    assert "seed: 1 before, 2 now" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_diverges_says_what_to_do(tmp_path, capsys):
    assert cli.main([*training(tmp_path), "--set", "learning_rate=1e30"]) == 1
    assert "Lower the learning rate" in capsys.readouterr().err


def test_fine_tune(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for label, brightness in (("dark", 0), ("light", 150)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(5):
            image = rng.integers(0, 100, (40, 36 + i, 3)) + brightness
            Image.fromarray(image.astype("uint8")).save(tmp_path / "photos" / label / f"{i}.jpg")
    run = str(tmp_path / "run")
    arguments = ["fine-tune", str(tmp_path / "photos"), "--from", "PreActResNet20", "--weights", "cifar10"]
    arguments += ["--output", run, "--epochs", "2", "--set", "learning_rate=0.05"]
    assert cli.main(arguments) == 0
    (error,) = re.findall(r"([\d.]+) % test error after the last of 2 epochs", capsys.readouterr().out)
    assert cli.main(["classify", str(tmp_path / "photos" / "light" / "4.jpg"), "--model", run]) == 0
    assert {"dark", "light"} < set(capsys.readouterr().out.split())
    assert cli.main(["evaluate", run, "--data", str(tmp_path / "photos")]) == 0
    assert f"{error} % top-1" in capsys.readouterr().out
    assert cli.main([*arguments, "--size", "40"]) == 2
    assert "size" in capsys.readouterr().err


@pytest.mark.slow
def test_networks_of_one_channel(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 8, 8, 1), dtype="uint8"), np.arange(20) % 4
    data, run = str(tmp_path / "grey.npz"), str(tmp_path / "run")
    np.savez(data, x_train=images, y_train=labels, x_test=images, y_test=labels)
    arguments = ["--recipe", "cifar_short", "--epochs", "1", "--batch-size", "10", "--set", "warmup_steps=0"]
    assert cli.main(["train", "PreActResNet20", "--data", data, "--output", run, *arguments]) == 0
    assert cli.main(["evaluate", run, "--data", data, "--crop", "6"]) == 0
    assert "of 20 test images of grey, 6x6" in capsys.readouterr().out
    assert cli.main(["classify", str(IMAGES / "cat_0000.png"), "--model", run]) == 0
    assert cli.main(["explain", str(IMAGES / "cat_0000.png"), "--model", run, "--output", f"{run}/cat.png"]) == 0
    assert cli.main(["push", run, "owner/grey", "--dry-run"]) == 0
    # 2 * 9 * 16 weights of the first conv less than the 269,722 of three channels, 6 * 65 of the head for 4 classes.
    assert f"{269_722 - 288 - 390:,} parameters" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_from_weights_says_which(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 8, 8, 3), dtype="uint8"), np.arange(20) % 4
    data, run = str(tmp_path / "data.npz"), tmp_path / "run"
    np.savez(data, x_train=images, y_train=labels, x_test=images, y_test=labels)
    arguments = ["--recipe", "cifar_short", "--epochs", "1", "--batch-size", "10", "--set", "warmup_steps=0"]
    arguments += ["--set", "learning_rate=1e-6", "--weights", "cifar10", "--data", data, "--output", str(run)]
    for _ in range(2):  # the second finds that it is done
        assert cli.main(["train", "PreActResNet20", *arguments]) == 0
    assert json.loads((run / "run.json").read_text())["base"] == "PreActResNet20(weights='cifar10')"
    model, start = kp.load_run(run)[0], kp.PreActResNet20(weights="cifar10")
    np.testing.assert_allclose(model.get_weights()[0], start.get_weights()[0], atol=1e-4)
    assert model.output_shape == (None, 4)


def test_an_error_is_printed_beside_what_others_published(tmp_path, capsys):
    images, labels = np.zeros((10, 32, 32, 3), "uint8"), np.arange(10)
    data = tmp_path / "cifar10.npz"
    np.savez(data, x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert cli.main(["evaluate", "PreActResNet20", "--weights", "cifar10", "--data", str(data)]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("90.00 % top-1 and 50.00 % top-5 error: 9 and 5 of 10 test images")
    assert "  published: 6.51 % (pytorchcv, crop 32; pytorchcv README (best epoch on the test set))" in others


@pytest.mark.parametrize("arguments, message", [
    (["train", "PreActResNet20", "--data", "DATA", "--output", "OUT", "--recipe", "paper"], "`recipe` must be one of"),
    (["train", "PreActResNet20", "--data", "DATA", "--output", "OUT", "--set", "lr=1"], "--set takes FIELD=VALUE with"),
    (["train", "PreActResNet20", "--data", "none.npz", "--output", "OUT"], "none.npz does not exist"),
    (["train", "PreActResNet20", "--data", "DATA", "--output", "OUT", "--strategy", "two"], "`strategy` must be"),
    (["evaluate", "PreActResNet20", "--data", "DATA"], "Give the weights of PreActResNet20"),
    (["train", "PreActResNet20", "--data", "DATA", "--output", "OUT", "--set", "nesterov=False"], "of the type bool"),
    (["recipes", "paper"], "`recipe` must be one of 'cifar_paper'"),
    (["pull", "ResNet44"], "There are no weights of ResNet44; `keras-preact list` shows"),
])
def test_training_commands_that_cannot_be_run(arguments, message, tmp_path, capsys):
    places = {"DATA": str(tmp_path / "data.npz"), "OUT": str(tmp_path / "run")}
    assert cli.main([places.get(a, a) for a in arguments]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_recipes(capsys):
    assert cli.main(["recipes"]) == 0
    assert capsys.readouterr().out.startswith("cifar_paper: the paper's appendix")
    assert cli.main(["recipes", "cifar_paper"]) == 0
    assert "  warmup_steps = 400\n  warmup_rate = 0.01\n" in capsys.readouterr().out


def test_show_tells_the_error_of_the_weights(capsys):
    cli.main(["show", "PreActResNet20"])
    out = capsys.readouterr().out
    assert re.search(
        r"weights='cifar10': \d\.\d\d % \(last epoch\), crop 32x32, bundled\n"
        r" +keras_preact: .*; 75 epochs of cifar_short; Apache-2.0; [\d,]+ bytes; sha256:\w{64}\n", out,
    )
