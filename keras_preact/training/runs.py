"""The folder of a training run: what it holds, which a kill at any moment leaves whole."""
import contextlib
import csv
import dataclasses
import importlib.util
import json
import math
import os
import platform
import tempfile
import time
from typing import Any

import keras

from keras_preact._support import atomic, locks
from keras_preact._support.checks import from_values, is_count
from keras_preact._support.drawing import drawing
from keras_preact._support.paths import local, no_pipe
from keras_preact.data.preprocessing import Preprocessing
from keras_preact.networks import files
from keras_preact.networks.building import ResNet
from keras_preact.networks.config import NetworkConfig
from keras_preact.training.recipes import Recipe

RUN, LOG, CURVE, LOCK = "run.json", "log.csv", "curve.png", ".lock"
COLUMNS = "epoch", "loss", "test_error"  # that every log has
CHECKPOINT, FINAL = "checkpoint.weights.h5", "final.weights.h5"
# What a run may go on with another value of, which changes the result by rounding at most; run.json records it.
FREE = "environment", "base", "loop", "jit_compile", "steps_per_execution", "track"


def _is_text(value):
    return isinstance(value, str)


# What run.json says in any case, and what else is asked of it, by its place there.
PARTS = {part: lambda value: isinstance(value, dict) for part in ("config", "data", "recipe")}
PARTS["data.preprocessing"] = lambda value: value is None or isinstance(value, dict)
ASKED = {
    "model": _is_text, "labels": lambda labels: isinstance(labels, list) and labels and all(map(_is_text, labels)),
    "seed": lambda seed: isinstance(seed, int), "data.name": _is_text, "data.train_images": is_count,
    "recipe.name": _is_text, "recipe.epochs": is_count,
}
GLANCE = "model", "seed", "data.name", "data.train_images", "recipe.name", "recipe.epochs"


@contextlib.contextmanager
def claimed(folder, run):
    """Holds the folder for this process, with a run.json that was written or found to be that of the same run.

    Raises:
        ValueError: another process holds it; it holds another run; it cannot be written to.
    """
    _make(folder)
    with open(folder / LOCK, "a+") as lock:
        _lock(lock, folder)
        _claim(folder, run)
        yield


def _lock(file, folder):
    """Locks a file and writes into it who holds it."""
    if locks.lock(file) is False:
        file.seek(0)
        raise ValueError(
            f"{folder} is trained into by {file.read() or 'another process'}; wait until that ends, or give another "
            "`output`."
        )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    file.flush()


def _is_locked(folder):
    try:
        with open(folder / LOCK) as file:
            return locks.lock(file, shared=True) is False
    except OSError:  # there is none
        return False


def found(folder):
    """Returns what there is to know at a glance of every run in a folder and the folders in it, a dict each.

    Its state is "finished", "running", or "stopped", from where it goes on. `left` are the seconds that the epochs to
    come take at the speed of the last one, measuring apart; None where none has ended.

    Args:
        folder: of runs.

    Raises:
        ValueError: a run.json or log.csv that is damaged.
    """
    rows = []
    for path in sorted(local("folder", folder).rglob(RUN)):
        run, log = read_run(path.parent, GLANCE), read_log(path.parent / LOG)
        epoch, epochs = (int(log[-1]["epoch"]) if log else 0), run["recipe"]["epochs"]
        speed = log[-1].get("images_per_second") if log else None
        speed = float(speed) if _is_number(speed) else 0
        finished = (path.parent / FINAL).exists()
        rows.append({
            "folder": str(path.parent), "network": run["model"], "data": run["data"]["name"],
            "recipe": run["recipe"]["name"], "seed": run["seed"], "epoch": epoch, "epochs": epochs,
            "error": float(log[-1]["test_error"]) if log else None,
            "state": "finished" if finished else "running" if _is_locked(path.parent) else "stopped",
            "left": round((epochs - epoch) * run["data"]["train_images"] / speed) if speed else None,
        })
    return rows


def _make(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(1_000_000))
    except OSError as error:
        raise ValueError(f"`output` must be a folder that can be written to: {error}") from error


def _claim(folder, run):
    run = json.loads(json.dumps(run))
    if (folder / RUN).exists():
        before = read_run(folder)
        before.pop("resumed", None)
        recipe = from_values(Recipe, before["recipe"], folder / RUN)
        before["recipe"] = json.loads(json.dumps(dataclasses.asdict(recipe)))
        differences = list(_differences(before, run))
        if differences:
            raise ValueError(
                f"{folder} holds a run that differs from this one; give another `output`, or the same arguments.\n  "
                + "\n  ".join(differences)
            )
    else:
        _write_run(folder, run)


def _write_run(folder, run):
    atomic.write_text(folder / RUN, json.dumps(run, indent=2) + "\n")


def go_on(folder, run, epoch):
    """Checks the log of a run that goes on after so many epochs, and records where it does.

    Returns:
        What is no longer as it was before, a line each.

    Raises:
        ValueError: the log lacks lines.
    """
    lines = [row["epoch"] for row in read_log(folder / LOG)]
    if lines[:epoch] != [str(i) for i in range(1, epoch + 1)]:
        raise ValueError(
            f"{folder / LOG} must have a line for each of the {epoch} epochs of {CHECKPOINT}, and has {len(lines)}; "
            f"put a copy of it there, or remove {CHECKPOINT} and {FINAL} to train from the start."
        )
    told = read_run(folder)
    now = json.loads(json.dumps({part: run[part] for part in ("engine", "environment")}))
    last = told.get("resumed", [told])[-1]
    changed = list(_differences({part: last.get(part, {}) for part in now}, now, free=()))
    if changed:
        _write_run(folder, told | {"resumed": [*told.get("resumed", ()), {"after_epoch": epoch} | now]})
    return changed


def check_there(folder):
    if not (folder / RUN).exists():
        raise ValueError(f"{folder / RUN} was removed while the run went on; put the folder back, or start again.")


def _differences(before, now, name="", free=FREE):
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            # Older versions did not write down what `before` lacks.
            if key not in free and key in before:
                yield from _differences(before[key], now.get(key), f"{name}.{key}" if name else key, free)
    elif before != now:
        yield f"{name}: {before!r} before, {now!r} now"


def read_log(path):
    """Returns the lines of a training log as dicts of text; none if there is no log.

    Raises:
        ValueError: a line is cut, or is not of a training log.
    """
    path = no_pipe("path", local("path", path))
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows, start=2):
        whole = None not in row and None not in row.values() and all(_is_number(row.get(column)) for column in COLUMNS)
        if not whole or not row["epoch"].isdecimal():
            raise ValueError(f"Line {i} of {path} is not whole; put a copy of the file there, or remove the line.")
    return rows


def _is_number(text):
    try:
        return math.isfinite(float(text))
    except (TypeError, ValueError):
        return False


def plot(logs, path, title, measured="test"):
    """Writes a PNG of curves in the style of the paper's Figs. 1, 3 and 6; nothing where Matplotlib is missing.

    Args:
        logs: {label: lines of a log}. Errors are solid, training losses dashed on a log scale.
        path: of the PNG.
        title: of the plot.
        measured: what the error was measured on.
    """
    if not importlib.util.find_spec("matplotlib"):
        return
    with drawing(path, figsize=(6, 4)) as left:
        right = left.twinx()
        for i, (label, log) in enumerate(logs.items()):
            epochs = [int(row["epoch"]) for row in log]
            colour = f"C{i}"
            left.semilogy(epochs, [float(row["loss"]) for row in log], colour, linestyle="--")
            right.plot(epochs, [float(row["test_error"]) for row in log], colour, label=label)
        left.set(xlabel="epoch", ylabel="training loss (dashed)", title=title)
        right.set(ylabel=f"{measured} error (%)", ylim=(0, None))
        if len(logs) > 1:
            right.legend(loc="upper right")
        left.xaxis.get_major_locator().set_params(integer=True)


def read_run(folder, needed=("seed",)):
    """Returns what run.json says, with config, data, recipe and what else is `needed`, of `ASKED`.

    Raises:
        ValueError: it is damaged.
    """
    path = no_pipe("folder", local("folder", folder) / RUN)
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        checks = PARTS | {name: ASKED[name] for name in needed}
        wrong = [name for name, check in checks.items() if not check(_said(run, name))]
        if wrong:
            raise ValueError(f"it does not say what ran, by {', '.join(wrong)}")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not what a training run writes; put a copy of it there, or remove the folder: {error}"
        ) from error
    return run


def _said(values, place):
    for name in place.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def save(path, network, epoch=None):
    """Writes the weights of a network, and the state of its optimizer if it has one, after so many epochs, sealed."""
    network.save_weights(path)
    if epoch is not None:
        files.note(path, "epoch", epoch)
    files.seal(path)


def restore(path, network):
    """Sets what `save` wrote, and returns its `epoch`; None where older versions wrote it.

    Raises:
        ValueError: it cannot be read, or is not what was written.
    """
    with files.reading(path):
        network.load_weights(path)
        epoch = files.noted(path, "epoch")
    return epoch if epoch is None else int(epoch)


def load_run(folder: str | os.PathLike, input_shape: tuple | None = None) -> tuple[keras.Model, dict[str, Any]]:
    """Returns (the network of a finished run with its final weights and a softmax, what run.json says of it).

    The network has the attributes `preprocessing` and `labels`, as pretrained ones have.

    Args:
        folder: the `output` of `train`.
        input_shape: as of the builders; default, and where it has None for the channels, what it was trained on.

    Raises:
        ValueError: the folder holds no finished run.

    Example:

    >>> model, run = kp.load_run("runs/short")
    >>> run["recipe"]["name"], model.labels[:2]
    ('short', ('0', '1'))
    """
    folder = local("folder", folder)
    if not (folder / RUN).exists() or not (folder / FINAL).exists():
        raise ValueError(f"{folder} holds no finished run: {RUN} and {FINAL} are what it ends with.")
    run = read_run(folder, ("model", "labels", "seed"))
    layers = files.read(folder / FINAL)
    preprocessing = from_values(Preprocessing, run["data"].get("preprocessing", {}), folder / RUN)
    shape = files.completed(input_shape or preprocessing.input_shape, layers)
    config, name = from_values(NetworkConfig, run["config"], folder / RUN), run["model"].lower()
    files.check_size(config, layers, folder / FINAL)
    model = ResNet(config, input_shape=shape, classes=len(run["labels"]), name=name)
    files.assign(model, layers, folder / FINAL)
    model.preprocessing, model.labels = preprocessing.of_input(shape), tuple(run["labels"])
    return model, run
