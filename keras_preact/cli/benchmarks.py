"""The verb that times networks against each other: benchmark."""
import dataclasses
import json

import click

from keras_preact._support.paths import local
from keras_preact.cli.common import POSITIVE, on_keras, print_table


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--against", multiple=True, metavar="NAME",
              help="What they are compared with, also keras.applications:ResNet50V2.  [default: the first NAME]")
@click.option("--batch-size", type=POSITIVE, multiple=True,
              help="Images at a time.  [default: 1 and 32; with --first-step 16]")
@click.option("--train", is_flag=True, help="Training steps instead of predictions.")
@click.option("--precision", default="float32", help="Keras dtype policy of training.")
@click.option("--first-step", is_flag=True, help="Only the first training steps, from a fresh process each.")
@click.option("--rounds", type=POSITIVE, default=5, help="Measurements of each.")
@click.option("--seconds", type=float, default=2.0, help="Of each measurement at least.")
@click.option("--size", type=POSITIVE, help="Side of the images in pixels.  [default: the first network's]")
@click.option("--json", "json_file", metavar="FILE", help="Write every measurement there.")
@click.option("--plot", metavar="PNG", help="Plot the ratios, or with --first-step the memory, there.")
@on_keras
def benchmark(names, against, batch_size, train, precision, first_step, rounds, seconds, size, json_file, plot):
    """Time networks against each other, in turn, and print ratios.

    NAME is a network; NAME:simplified for simplify_for_inference; NAME:onnx, NAME:litert or NAME:openvino for
    kp.predictor. To train also NAME:plain for plain Keras, NAME:looped, NAME:unrolled, NAME:rematerialized,
    NAME:mirrored for two replicas, pytorchcv:preresnet20_cifar10 for PyTorch by hand, and NAME@torch for another
    backend of Keras.
    """
    from rich.console import Console

    from keras_preact.benchmarking import comparison

    names = [*against, *names]
    with Console(stderr=True).status("Starting") as status:
        if first_step:
            found = [
                measured for batch in batch_size or (16,)
                for measured in comparison.first_steps(names, batch, size, precision, status.update)
            ]
        else:
            found = comparison.compare(
                names, batch_size or (1, 32), "train" if train else "predict", rounds, seconds, size, precision,
                status.update,
            )
    failures = [measured for measured in found if measured.error]
    if len(failures) < len(found):
        _print(found, names[0], train, first_step)
    if json_file:
        local("json", json_file).write_text(
            json.dumps([dataclasses.asdict(m) for m in found], indent=2) + "\n", encoding="utf-8"
        )
    if plot:
        draw = comparison.plot_memory if first_step else comparison.plot
        draw(found, plot)
    for measured in failures:
        click.echo(f"keras-preact: {measured.name}: {measured.error}", err=True)
    return 1 if failures else 0


def _print(found, first, train, first_step):
    from keras_preact.benchmarking import comparison

    if first_step:
        columns = "Batch", "Build (s)", "First step (s)", f"Both over {first}", "Step (s)", "Peak memory (GB)"
        print_table(("Network", *columns), comparison.summary_of_first_steps(found), whole=True)
        return
    if not train:
        _print_starts(found)
    print_table(("Network", "Batch", "Images/s", f"Over {first}"), comparison.summary(found), whole=True)


def _print_starts(found):
    print_table(("Network", "Build (s)", "Load (s)", "First call (s)", "Peak memory (GB)"), [
        (m.name, *(f"{value:.2f}" for value in (m.build, m.load, m.first_call, m.memory / 1e9)))
        for m in found if not m.error
    ], whole=True)


VERBS = (benchmark,)
