"""The paper's rows as data, their runs, and reports of results made by hand."""
import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

import keras_preact as kp
from keras_preact import cli
from keras_preact._support import atomic
from keras_preact.networks.config import NetworkConfig
from keras_preact.paper import experiments, reporting
from keras_preact.paper.experiments import EXPERIMENTS, Experiment, Result, find, reproduce, results
from keras_preact.training import recipes, runs
from keras_preact.training.engine import Diverged

TINY = NetworkConfig((1, 1), (4, 6))
RECIPE = recipes.Recipe("tiny", "a test", epochs=4, batch_size=16, schedule="cosine", padding=1)
ROW = Experiment("table2", "a row", TINY, "digits", "tiny", 6.37)
SAME = Experiment("table3", "the same network", TINY, "digits", "tiny", 6.37)
OTHER = Experiment("table2", "another row", dataclasses.replace(TINY, order="original"), "digits", "tiny", None)


def published(table):
    return [(row.config.depth, row.config.order, row.published) for row in find(table)]


def test_the_tables_hold_every_row_of_the_paper():
    assert [len(find(f"table{i}")) for i in range(1, 6)] == [16, 10, 12, 9, 6]
    assert [row.published for row in find("table1")] == [
        "6.61", "fail", "fail", "12.35", *["fail"] * 6, "8.70", "9.81", "12.86", "6.91", "12.22", "fail",
    ]
    assert {row.config.depth for row in find("table1")} == {110}
    assert (110, "full_preactivation", "6.37") in published("table2")
    assert (164, "bn_after_addition", "6.50") in published("table2")
    assert (1001, "full_preactivation", "22.71") in published("table3")
    assert (1202, "original", "7.93") in published("table4")
    assert [(row.published, row.test) for row in find("table5")][::5] == [
        ("23.0 / 6.7", (224, 256)), ("20.1 / 4.8", (320, 320)),
    ]
    # "init b_g = 0 to -5" fails; searched "in the range of 0 to -10 with a decrement step of -1".
    biases = [row.config.join[1] for row in find("table1", "exclusive")]
    assert biases == [0, -1, -2, -3, -4, -5, -6, -7]
    gates = find("gates")
    assert [row.config.join for row in gates] == [("exclusive_gate", -bias) for bias in range(11)]
    assert {(row.hold_out, row.published, row.seeds) for row in gates} == {(5000, "", 1)}
    assert [(row.published, row.config.depth, row.config.order, row.seeds) for row in find("resnet101")] == [
        ("23.6 / 7.1", 101, "original", 1), ("24.6 / 7.5", 101, "bn_after_addition", 1),
    ]
    assert [row.published for row in find("table4", "1001 [ours]")] == [
        "4.92 (4.89 ± 0.14)", "4.62 (4.69 ± 0.20)", "22.71 (22.68 ± 0.22)",
    ]
    assert [row.recipe for row in find("table4", "batch 64")] == ["cifar_torch"]
    assert {row.table: row.seeds for row in EXPERIMENTS if row.table.startswith("table")} == {
        "table1": 5, "table2": 5, "table3": 5, "table4": 5, "table5": 1,
    }
    for row in EXPERIMENTS:
        recipes.find(row.recipe)
        assert row.data in row.row or row.data != "cifar100"


def test_rows_share_a_run_exactly_where_nothing_differs():
    determines = {}
    for row in EXPERIMENTS:
        determines.setdefault(row.run, set()).add((row.config, row.data, row.recipe, row.hold_out))
    assert all(len(found) == 1 for found in determines.values())
    assert len(determines) == len({(row.config, row.data, row.recipe, row.hold_out) for row in EXPERIMENTS})
    (table1,), (table2,) = find("table1", "original"), find("table2", "original, ResNet-110")
    assert table1.run == table2.run == "cifar10-110-basic-original-zero_pad"


def test_rows_are_found_by_what_they_say():
    assert [row.published for row in find("table1", "exclusive gating, bias -6")] == ["8.70"]
    with pytest.raises(ValueError, match="`table` must be one of 'table1'.*Received: 'table6'; did you mean"):
        find("table6")
    with pytest.raises(ValueError, match="No row of table5 contains 'resnet-50'. Its rows are:\n  ResNet-152, orig"):
        find("table5", "resnet-50")


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "tiny", RECIPE)
    for module in (reporting, experiments):
        monkeypatch.setattr(module, "EXPERIMENTS", (ROW, OTHER, SAME))
        monkeypatch.setattr(module, "TABLES", {"table2": "Table 2", "table3": "Table 3"})
    monkeypatch.setattr(reporting, "FIGURES", {"fig": ("Fig.", "table2", ("a row", "another row"))})


def write_run(output, experiment, seed, errors, epochs=4, end=runs.FINAL, **changes):
    name = experiment.run if epochs == 4 else f"{experiment.run}-{epochs}epochs"
    folder = output / name / f"seed{seed}"
    folder.mkdir(parents=True)
    recipe = dataclasses.asdict(dataclasses.replace(RECIPE, epochs=epochs))
    run = {"config": dataclasses.asdict(experiment.config), "data": {"name": "digits"}, "recipe": recipe, "seed": seed}
    (folder / runs.RUN).write_text(json.dumps(run | {"hold_out": 0} | changes))
    rows = [{"epoch": i, "loss": 1 / i, "test_error": error} for i, error in enumerate(errors, start=1)]
    atomic.write_csv(folder / runs.LOG, rows)
    if end:
        (folder / end).touch()


def test_a_report_of_runs(rows, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    for seed, last in ((1, 5.0), (2, 10.0), (3, 6.0)):
        write_run(tmp_path, ROW, seed, [50, 4, last])  # a best epoch that does not count
    write_run(tmp_path, ROW, 1, [60, 30], epochs=2)
    write_run(tmp_path, ROW, 4, [50, 1], end=None)  # has not ended
    write_run(tmp_path, ROW, 5, [50, 1], hold_out=5)  # measured on training images
    write_run(tmp_path, OTHER, 1, [90, 80], end=experiments.DIVERGED)
    text = reporting.report(tmp_path)
    # Median 6; mean 7; deviations -2, 3, -1: sqrt(14 / 2) = 2.65.
    assert "| a row | digits | 6.37 | 6.00 (7.00 ± 2.65, n=3) | fail (n=1) in 2 epochs |" in text
    assert "| another row | digits | fail | fail (n=1) |  |" in text
    assert "| the same network | digits | 6.37 | 6.00 (7.00 ± 2.65, n=3) |" in text
    assert cli.main(["reproduce", "table2", "--list", "--output", str(tmp_path)]) == 0
    (line,) = re.findall(r"a row .*", capsys.readouterr().out)
    assert re.sub(" +", " ", line).strip() == "a row digits 6.37 6.00 (7.00 ± 2.65, n=3), fail (n=1) in 2 epochs"
    assert (tmp_path / "report.md").read_text() == text and "![fig](fig.png)" in text
    assert (tmp_path / "fig.png").read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "report.csv", newline="") as file:
        first, second, *_ = csv.DictReader(file)
    assert (first["median"], first["mean"], first["std"]) == ("6.00", "7.00", "2.65")
    assert first["errors"] == "5.00 10.00 6.00"
    assert first["published"] == "6.37" and first["errors5"] == ""
    assert (first["full_length"], second["full_length"], second["epochs"]) == ("True", "False", "2")


def test_a_report_of_nothing_still_shows_the_paper(tmp_path):
    text = reporting.report(tmp_path)
    assert "| exclusive gating, bias -6 | cifar10 | 8.70 |  |  |" in text and not list(tmp_path.glob("*.png"))


@pytest.fixture
def data_dir(tmp_path):
    x, y = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype("uint8"), np.arange(40) % 4
    np.savez(tmp_path / "digits.npz", x_train=x[:32], y_train=y[:32], x_test=x[32:], y_test=y[32:])
    return tmp_path


@pytest.mark.slow
def test_reproducing_trains_what_is_missing(rows, data_dir, monkeypatch, capsys):
    arguments = {"output": data_dir / "out", "seeds": 2, "data_dir": data_dir, "verbose": 0}
    folders = reproduce([ROW, SAME], scale=0.5, **arguments)
    assert [folder.relative_to(data_dir / "out").parts[1] for folder in folders] == ["seed1", "seed2"]
    (result,) = results(SAME, data_dir / "out")
    logs = [runs.read_log(folder / runs.LOG) for folder in folders]
    assert (result.epochs, result.full) == (2, False)
    assert result.errors == {seed: float(log[-1]["test_error"]) for seed, log in enumerate(logs, start=1)}
    train = experiments.train
    monkeypatch.setattr(experiments, "train", None)
    reproduce([ROW], scale=0.5, **arguments)

    def diverge(config, data, recipe, folder, *args):
        train(config, data, recipe, folder, *args)
        (folder / runs.FINAL).unlink()
        raise Diverged("The training loss is nan")

    monkeypatch.setattr(experiments, "train", diverge)
    reproduce([OTHER], **arguments)
    (result,) = results(OTHER, data_dir / "out")
    assert (result.full, str(result)) == (True, "fail (n=2)")
    with pytest.raises(ValueError, match="`scale` must be above 0 and at most 1. Received: 2"):
        reproduce([ROW], scale=2)


def test_rows_of_photographs_are_measured_at_their_crop(monkeypatch, tmp_path):
    pytest.importorskip("tensorflow")
    recipe = dataclasses.replace(RECIPE, epochs=1, batch_size=4, augmentation="scale_jitter", size=16)
    monkeypatch.setitem(recipes.RECIPES, "tiny", recipe)
    for label in range(2):
        (tmp_path / "photos" / str(label)).mkdir(parents=True)
        for i in range(10):
            image = Image.new("RGB", (30, 20 + i), (100 * label, 10 * i, 50))
            image.save(tmp_path / "photos" / str(label) / f"{i}.png")
    rows = [
        Experiment("table5", f"crop {crop}", TINY, "photos", "tiny", 20.0, 5.0, (crop, resize))
        for crop, resize in ((16, 18), (20, 20))
    ]
    (folder,) = reproduce(rows, tmp_path / "out", seeds=1, data_dir=tmp_path, verbose=0)
    model, run = kp.load_run(folder, (None, None, 3))
    preprocessing = kp.Preprocessing(**run["data"]["preprocessing"])
    for row in rows:
        (result,) = results(row, tmp_path / "out")
        crop, resize = row.test
        report = kp.evaluate(model, tmp_path / "photos", preprocessing, crop=crop, resize=resize, verbose=0)
        assert (result.errors, result.errors5) == ({1: report.top1_error}, {1: report.top5_error})
    assert str(Result(90, True, {1: 20.25}, {1: 5.125})) == "fail (n=1)"
    assert str(Result(90, True, {1: 19.25, 2: 19.75}, {1: 5.0, 2: 6.0})) == "19.50 / 5.50 (19.50 ± 0.35, n=2)"


def test_the_command_lists_rows_and_reports(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["reproduce", "table3", "--row", "1001", "--list"]) == 0
    assert "22.71" in capsys.readouterr().out
    assert cli.main(["reproduce", "table3", "--row", "VGG"]) == 2
    assert "No row of table3 contains 'VGG'" in capsys.readouterr().err
    assert cli.main(["report", "--output", str(tmp_path)]) == 0
    assert "| ResNet-1001 [ours] | cifar10 | 4.92 (4.89 ± 0.14) |" in capsys.readouterr().out
    assert cli.main(["reproduce", "--list"]) == 0
    out = capsys.readouterr().out
    assert "ResNet-101, BN after addition" in out and "ResNet-1001 [ours], batch 64" in out
    assert cli.main(["reproduce"]) == 2 and "Name a table, table1, " in capsys.readouterr().err
