"""The folder of a training run: what it holds, which a kill at any moment leaves whole."""
import csv
import importlib.util
import json
import tempfile

from keras_preact._support import atomic
from keras_preact._support.drawing import drawing
from keras_preact._support.paths import local
from keras_preact.data.preprocessing import Preprocessing
from keras_preact.networks import files
from keras_preact.networks.building import ResNet
from keras_preact.networks.config import NetworkConfig

RUN, LOG, CURVE = "run.json", "log.csv", "curve.png"
CHECKPOINT, FINAL = "checkpoint.weights.h5", "final.weights.h5"
WHERE = "environment", "loop"  # what a run may go on with another value of


def claim(folder, run):
    """Writes run.json, or compares it with the one that is there."""
    run = json.loads(json.dumps(run))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(1_000_000))
    except OSError as error:
        raise ValueError(f"`output` must be a folder that can be written to: {error}") from error
    path = folder / RUN
    if path.exists():
        before = read_run(folder)
        differences = list(_differences(before, run))
        if differences:
            raise ValueError(
                f"{folder} holds a run that differs from this one; give another `output`, or the same arguments.\n  "
                + "\n  ".join(differences)
            )
    else:
        atomic.write_text(path, json.dumps(run, indent=2) + "\n")


def _differences(before, now, name=""):
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            if key not in WHERE:
                yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name}: {before!r} before, {now!r} now"


def read_log(path):
    """Returns the lines of a training log as dicts of text; none if there is no log."""
    path = local("path", path)
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


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


def read_run(folder):
    """Returns what run.json says."""
    return json.loads((local("folder", folder) / RUN).read_text())


def load_run(folder, input_shape=None):
    """Returns (the network of a finished run with its final weights and a softmax, what run.json says of it).

    The network has the attributes `preprocessing` and `labels`, as pretrained ones have.

    Args:
        folder: the `output` of `train`.
        input_shape: as of the builders; default, and where it has None for the channels, what it was trained on.

    Raises:
        ValueError: the folder holds no finished run.
    """
    folder = local("folder", folder)
    if not (folder / RUN).exists() or not (folder / FINAL).exists():
        raise ValueError(f"{folder} holds no finished run: {RUN} and {FINAL} are what it ends with.")
    run = read_run(folder)
    layers = files.read(folder / FINAL)
    preprocessing = Preprocessing(**run["data"]["preprocessing"])
    shape = files.completed(input_shape or preprocessing.input_shape, layers)
    config, name = NetworkConfig(**run["config"]), run["model"].lower()
    model = ResNet(config, input_shape=shape, classes=len(run["labels"]), name=name)
    files.assign(model, layers, folder / FINAL)
    model.preprocessing, model.labels = preprocessing, tuple(run["labels"])
    return model, run
