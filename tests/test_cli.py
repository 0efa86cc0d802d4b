"""The console command, as a user meets it."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from keras_preact import cli

IMAGES = Path(__file__).parent.parent / "examples" / "images"


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def test_classify_prints_a_line_for_each_image_and_nothing_else():
    environment = {k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND")}
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


@pytest.mark.parametrize("arguments, message", [
    (["classify", "EMPTY"], "no image file in the folder EMPTY"),
    (["classify", "a.png", "--model", "PreActResNet21"], "'PreActResNet21'. Did you mean PreActResNet"),
    (["classify", "a.png", "--weights", "imagenet"], "PreActResNet20 has 'cifar10'. Received: 'imagenet'"),
    (["show", "VGG"], "No model is named 'VGG'. `keras-preact list` names them all."),
    (["list", "VGG*"], "No model is named 'VGG*'. There are: PreActResNet20"),
])
def test_wrong_commands_say_what_is_right(arguments, message, tmp_path, capsys):
    status = cli.main([str(tmp_path) if a == "EMPTY" else a for a in arguments])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("keras-preact: ") and message.replace("EMPTY", str(tmp_path)) in err


def test_top_must_be_positive(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["classify", "--top", "0", "a.png"])
    assert stopped.value.code == 2 and "must be at least 1, and is 0" in capsys.readouterr().err


def test_list(capsys):
    assert cli.main(["list", "PreAct*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.strip().startswith("PreActResNet") for line in lines) == 17
    (row,) = [line for line in lines if "PreActResNet20 " in line]
    assert re.search(r"32x32 +269,722 +40,551,040 +cifar10 \(\d\.\d\d %\)", row)


def test_show_is_the_stage_table(capsys):
    assert cli.main(["show", "PreActResNet50"]) == 0
    out = capsys.readouterr().out
    # Table 1 of [1]
    for stage, units, size in ((1, "64, 3x3 64, 1x1 256] x 3", 56), (2, "128, 3x3 128, 1x1 512] x 4", 28),
                               (3, "256, 3x3 256, 1x1 1024] x 6", 14), (4, "512, 3x3 512, 1x1 2048] x 3", 7)):
        assert re.search(rf"stage{stage} +\[1x1 {re.escape(units)} +{size}x{size} ", out)
    assert re.search(r"total +25,549,352 +4,089,184,256", out)


def test_show_tells_the_error_of_the_weights(capsys):
    cli.main(["show", "PreActResNet20"])
    assert re.search(r"weights='cifar10': \d\.\d\d % error on cifar10 test \(last epoch\)", capsys.readouterr().out)
