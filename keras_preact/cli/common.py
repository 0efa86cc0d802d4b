"""What several verbs share: starting a backend, their options, the network that they name, and tables."""
import dataclasses
import functools
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from keras_preact._support.paths import local
from keras_preact._support.processes import quietly
from keras_preact.exporting.runtimes import AUTO, CHOICES, OF_SUFFIX

DEFAULT = "PreActResNet20", "cifar10"  # network and weights
BACKENDS = ("tensorflow", "jax", "torch")
SWITCH = {"auto": "auto", "on": True, "off": False}
BATCH = 64  # images that a verb predicts at once
POSITIVE = click.IntRange(min=1)
WIDE = 1000  # columns of a table that no terminal shows
DATA = "TensorFlow data set, .npz or .csv file, or folder of class folders."


def on_keras(verb: Callable) -> Callable:
    """Starts a backend before `verb` runs."""
    @functools.wraps(verb)
    def started(**options):
        start_backend()
        return verb(**options)

    return started


def start_backend() -> None:
    """Imports Keras without TensorFlow's start-up messages, on a backend that is installed if none is asked for.

    KERAS_BACKEND asks for one, and keras.json does; but that Keras writes by itself, so what it names may be missing.
    """
    if "KERAS_BACKEND" not in os.environ:
        installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
        if not installed:
            raise OSError("Keras needs a backend: pip install 'keras_preact[tensorflow]', or install jax or torch.")
        asked = _configured()
        if asked in BACKENDS and asked not in installed:
            os.environ["KERAS_BACKEND"] = installed[0]
    # TensorFlow leaves oneDNN off on CPUs without instructions for neural networks, whose convs it speeds up, too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with quietly():
        importlib.import_module("keras")


def _configured() -> str:
    """Returns the backend that Keras takes where KERAS_BACKEND names none."""
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    try:
        return json.loads(Path(home, "keras.json").expanduser().read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return BACKENDS[0]


def of_network(name: str = "model") -> Callable:
    """Adds to a verb what it takes a network by: `name`, an argument or an option, and --weights."""
    what = "Name of a network, .keras file, output folder of a training run, or hf://owner/name"
    if name == "model":
        network = click.argument(name, metavar="NETWORK")
    else:
        network = click.option(name, "model", help=f"{what}.  [default: {' '.join(DEFAULT)}]")
    weights = click.option("--weights", help="Of a named network: a tag, a file, or hf://owner/name.")
    return lambda verb: network(weights(verb))


def _switch(option, field, what):
    return click.option(
        option, field, type=click.Choice(list(SWITCH)), default="auto", help=what,
        callback=lambda context, parameter, value: SWITCH[value],
    )


def of_engine(verb: Callable) -> Callable:
    """Adds options named as the fields of an `Engine` to a verb, which gets the `engine` that they describe."""
    @click.option("--strategy", default="none", help="none, mirrored, multi-worker or jax.")
    @click.option("--replicas", type=POSITIVE, metavar="DEVICES",
                  help="Of --strategy mirrored; without GPUs the CPU acts as so many.  [default: all]")
    @click.option("--precision", default="float32", help="Keras dtype policy.")
    @_switch("--xla", "jit_compile", "Compile by XLA.")
    @click.option("--steps-per-execution", type=POSITIVE, default=1, help="Steps in one call.")
    @click.option("--rematerialize", is_flag=True, help="Compute activations anew to save memory.")
    @_switch("--loop", "loop", "Alike units as one loop.")
    @click.option("--track", default="auto", help="Where to watch the log: tensorboard, wandb or none.")
    @click.option("--batch-norm", default="replica", help="replica or synchronized.")
    @click.option("--batch-norm-group", type=POSITIVE, metavar="IMAGES",
                  help="Statistics of so many images at a time.  [default: those on one device]")
    @functools.wraps(verb)
    def with_engine(**options):
        from keras_preact.training.engine import Engine

        values = {field.name: options.pop(field.name) for field in dataclasses.fields(Engine) if field.name in options}
        return verb(engine=Engine(**values), **options)

    return with_engine


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def network(name: str | None, weights: str | None, input_shape: tuple | None = None) -> Any:
    """Returns the network that a command names: that of a run's folder, a file or hf://owner/name, or a builder's."""
    if name is None:
        name, weights = DEFAULT[0], weights or DEFAULT[1]
    import keras

    from keras_preact.networks.architectures import named
    from keras_preact.training import runs
    from keras_preact.zoo import builders, described, hub

    keras.config.set_image_data_format("channels_last")
    run = not hub.is_address(name) and (local("model", name) / runs.RUN).exists()
    file = name.endswith(".keras")
    if run or file or hub.is_address(name):
        if weights is not None:
            raise ValueError(f"{name} has weights of its own: leave out --weights. Received: {weights}")
        if file:
            return described.load_model(name)
        return runs.load_run(name, input_shape)[0] if run else builders.from_hub(name, input_shape=input_shape)
    named(name)
    if weights is None:
        raise ValueError(f"Give the weights of {name}: --weights TAG, FILE or hf://owner/name.")
    return getattr(builders, name)(weights=weights, input_shape=input_shape)


def trained(name: str | None, weights: str | None) -> Any:
    """Returns the `network` of a command, with preprocessing and labels."""
    model = network(name, weights)
    if not (getattr(model, "preprocessing", None) and model.labels):
        raise ValueError(
            "The file does not say the preprocessing and labels of the network. Set model.preprocessing and "
            "model.labels before you save it; `--weights` must be a tag, a file that `convert` wrote, or "
            f"hf://owner/name. Received: {weights or name}"
        )
    return model


def of_runtime(verb: Callable) -> Callable:
    """Adds --runtime to a verb that has a network predict."""
    return click.option(
        "--runtime", type=click.Choice(CHOICES),
        help="Compute on this; auto measures what is installed.  [default: Keras, not simplified]",
    )(verb)


of_activation = click.option(
    "--activation", type=click.Choice(["softmax", "sigmoid"]),
    help="Of a network that gives logits.  [default: what its last layer says]",
)


def predictor(name: str | None, weights: str | None, runtime: str | None, activation: str | None = None) -> Any:
    """Returns the `Predictor` of a command that names a runtime or an exported file, and None of any other."""
    import keras_preact

    exported = name is not None and Path(name).suffix in OF_SUFFIX
    if runtime is None and not exported:
        return None
    network = name if exported else trained(name, weights)
    predict = keras_preact.predictor(network, runtime or AUTO, BATCH, activation=activation)
    click.echo(predict, err=True)
    return predict


def image_files(path: str) -> list[Path]:
    """Returns `path` itself, which may be "-", or, of a folder, the image files in it by name."""
    folder = local("path", path)
    if not folder.is_dir():
        return [folder]
    from PIL import Image

    # No pipes, from which nothing may ever come, and as of data sets no hidden files.
    files = sorted(
        file for file in folder.iterdir()
        if not file.name.startswith(".") and file.suffix.lower() in Image.registered_extensions() and file.is_file()
    )
    if not files:
        raise ValueError(f"There is no image file in the folder {path}")
    return files


def print_table(
    columns: Iterable[str], rows: Iterable[Iterable[str]], total: Iterable[str] | None = None, whole: bool = False
) -> None:
    """Prints a table of plain text, `total` below a line; lines are not broken if `whole`, or without a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        number = column in ("Parameters", "Multiply-adds")
        table.add_column(Text(column), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # a text of its own is no markup: "[ours]" stays
    if total is not None:
        table.add_section()
        table.add_row(*map(Text, total))
    fits = not whole and (sys.stdout.isatty() or "COLUMNS" in os.environ)
    Console(width=None if fits else WIDE).print(table)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def by(size: Iterable[int]) -> str:
    """Returns a size as "32x32"."""
    return "x".join(map(str, size))
