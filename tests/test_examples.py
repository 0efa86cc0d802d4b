"""The examples, run as users call them; training itself is stood in for."""
import runpy
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_preact as kp
from keras_preact._support import atomic
from keras_preact.training import runs

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_the_weights_are_trained_in_their_order_and_those_that_are_done_skipped(tmp_path, monkeypatch, capsys):
    trained = []

    def train(network, data, recipe, folder, seed, engine):
        trained.append((network, str(data), recipe, seed, engine.precision))
        folder.mkdir(parents=True)
        row = {"epoch": 40, "loss": 1.0, "test_error": 5.0 + len(trained)}
        atomic.write_csv(folder / runs.LOG, [row])
        (folder / runs.FINAL).touch()

    monkeypatch.setattr(kp, "train", train, raising=False)
    call = "train_cifar_weights.py", "--npz", "data", "--precision", "mixed_bfloat16", "--output", tmp_path
    run(monkeypatch, *call, "--only", "PreActResNet110")
    assert trained == [
        ("PreActResNet110", str(Path("data", f"{name}.npz")), "cifar_fast", 1, "mixed_bfloat16")
        for name in ("cifar10", "cifar100")
    ]
    capsys.readouterr()
    run(monkeypatch, *call)
    assert len(trained) == 9 and trained[2][0] == "PreActResNet164" and [row[3] for row in trained].count(2) == 1
    out = capsys.readouterr().out.splitlines()
    assert "   6.0 %  preactresnet110-cifar10-1, after the last of 40 epochs" in out


def test_fine_tuning_on_a_part_of_a_folder_sees_every_class(tmp_path, monkeypatch):
    for label in ("a", "b", "c"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (16, 16), (9 * i, 0, 0)).save(tmp_path / "photos" / label / f"{i}.png")
    labels = []

    def fit(self, x, y, **arguments):
        labels.append(y)
        self.optimizer.build(self.trainable_variables)  # which the saved file holds

    monkeypatch.setattr(keras.Model, "fit", fit)
    monkeypatch.setattr(keras.Model, "evaluate", lambda self, x, y, **arguments: {"accuracy": 0.5})
    with pytest.warns(UserWarning, match="initialised at random, for 3 classes"):
        options = "--size", 16, "--images", 12, "--output", tmp_path / "out"
        run(monkeypatch, "fine_tune.py", tmp_path / "photos", *options)
    for y in labels:
        assert len(y) == 12 and set(np.unique(y)) == {0, 1, 2}
    assert len(labels) == 2 and kp.load_model(tmp_path / "out" / "model.keras").labels == ("a", "b", "c")
