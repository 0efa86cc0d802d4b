"""What trackers get of a run, read back by their own packages."""
import json
import struct

import numpy as np
import pytest

import keras_preact as kp
from keras_preact.networks.config import NetworkConfig
from keras_preact.training import tracking
from keras_preact.training.engine import Engine, train
from keras_preact.training.recipes import Recipe
from keras_preact.training.runs import read_log

RECIPE = Recipe("tiny", "a test", epochs=2, batch_size=8, padding=1)


def tracked(folder, track):
    """Trains for two epochs and returns the test errors of the log."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (24, 8, 8, 3), dtype="uint8"), np.arange(24) % 3
    train(NetworkConfig((1, 1), (4, 6)), ((x, y), (x, y)), RECIPE, folder, engine=Engine(track=track), verbose=0)
    return [float(row["test_error"]) for row in read_log(folder / "log.csv")]


def records(path):
    """Yields the records of a file of W&B: LevelDB's log format, behind seven bytes, in blocks of 32 KiB."""
    content, at, found = path.read_bytes(), 7, b""
    while at < len(content):
        left = 32_768 - at % 32_768
        if left < 7:
            at += left
            continue
        size, kind = struct.unpack_from("<HB", content, at + 4)  # behind a checksum
        found += content[at + 7:at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield found
            found = b""


def of_wandb(folder):
    """Returns the lines that a run without network kept for the server, and what it is called."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    lines, record = [], wandb_internal_pb2.Record()
    for data in records(path):
        record.ParseFromString(data)
        if record.HasField("history"):
            lines.append({".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item})
    return lines, path.stem


@pytest.mark.slow
def test_wandb_gets_each_line_of_the_log_and_one_run_of_each_folder(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    names = set()
    for folder in (tmp_path / "a", tmp_path / "b"):
        errors = tracked(folder, "wandb")
        lines, name = of_wandb(folder)
        assert [line["test_error"] for line in lines] == errors and len(errors) == 2
        assert [line["_step"] for line in lines] == [1, 2] and lines[0]["learning_rate"] == 0.1
        names.add(name)
    assert len(names) == 2


def test_tensorboard_gets_the_losses(tmp_path):
    pytest.importorskip("tensorboard")
    pytest.importorskip("tensorflow")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    errors = tracked(tmp_path / "run", "tensorboard")
    (path,) = (tmp_path / "run" / "tensorboard" / "validation").iterdir()
    found = [
        float(make_ndarray(value.tensor)) for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value if value.tag == "epoch_accuracy"
    ]
    np.testing.assert_allclose(100 * (1 - np.array(found)), errors, atol=0.01)


def test_nothing_is_written_where_nothing_is_asked_for(tmp_path):
    tracked(tmp_path / "run", "none")
    assert not (tmp_path / "run" / "tensorboard").exists() and not (tmp_path / "run" / "wandb").exists()


def test_unknown_trackers_and_missing_packages_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="`track` must be one of 'auto', 'none', 'tensorboard', 'wandb'"):
        kp.Engine(track="mlflow")
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="track='wandb' needs wandb: pip install wandb"):
        kp.Engine(track="wandb")
