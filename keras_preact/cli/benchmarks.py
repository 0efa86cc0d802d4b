"""The verb that times networks against each other: benchmark."""
import dataclasses
import json
from pathlib import Path

import click

from keras_preact.cli.common import POSITIVE, on_keras, print_table


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--against", multiple=True, metavar="NAME",
              help="What they are compared with, also keras.applications:ResNet50V2.  [default: the first NAME]")
@click.option("--batch-size", type=POSITIVE, multiple=True, help="Images at a time.  [default: 1 and 32]")
@click.option("--train", is_flag=True, help="Training steps, too.")
@click.option("--first-step", is_flag=True,
              help="Only the first training steps, from a fresh process each; also of NAME:looped, NAME:unrolled, "
              "NAME:rematerialized and NAME:looped:rematerialized.")
@click.option("--rounds", type=POSITIVE, default=5, help="Measurements of each.")
@click.option("--seconds", type=float, default=2.0, help="Of each measurement at least.")
@click.option("--size", type=POSITIVE, help="Side of the images in pixels.  [default: the first network's]")
@click.option("--json", "json_file", metavar="FILE", help="Write every measurement there.")
@click.option("--plot", metavar="PNG", help="Plot the ratios, or with --first-step the memory, there.")
@on_keras
def benchmark(names, against, batch_size, train, first_step, rounds, seconds, size, json_file, plot):
    """Time networks against each other, in turn, and print ratios.

    NAME is a network; NAME:simplified for simplify_for_inference, NAME:onnxruntime for ONNX Runtime.
    """
    from rich.console import Console

    from keras_preact import benchmarking

    names = [*against, *names]
    with Console(stderr=True).status("Starting") as status:
        if first_step:
            found = [
                measured for batch in batch_size or (16,)
                for measured in benchmarking.first_steps(names, batch, size, status.update)
            ]
        else:
            works = ("predict", "train") if train else ("predict",)
            found = benchmarking.compare(
                names, batch_size or (1, 32), works, rounds, seconds, size, progress=status.update
            )
    if first_step:
        _print_first_steps(found, names)
    else:
        _print_speeds(found, benchmarking.summary(found))
    if json_file:
        Path(json_file).write_text(json.dumps([dataclasses.asdict(m) for m in found], indent=2) + "\n")
    if plot:
        draw = benchmarking.plot_memory if first_step else benchmarking.plot
        draw(found, plot)


def _print_speeds(found, summary):
    print_table(("Network", "Build (s)", "Load (s)", "First call (s)", "Peak memory (GB)"), [
        (m.name, *(f"{value:.2f}" for value in (m.build, m.load, m.first_call, m.memory / 1e9))) for m in found
    ])
    print_table(("Network", "Work", "Batch", "Images/s", f"Over {found[0].name}"), summary)


def _print_first_steps(found, names):
    rows = []
    for i, m in enumerate(found):
        first = found[i - i % len(names)]
        ratio = (m.build + m.first_step) / (first.build + first.first_step)
        values = m.build, m.first_step, ratio, m.step, m.memory / 1e9
        rows.append((m.name, str(m.batch), *(f"{value:.2f}" for value in values)))
    both = f"Both over {names[0]}"
    print_table(("Network", "Batch", "Build (s)", "First step (s)", both, "Step (s)", "Peak memory (GB)"), rows)


VERBS = (benchmark,)
