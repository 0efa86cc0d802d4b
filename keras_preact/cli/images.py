"""Verbs on images: classify, explain."""
import io
import json
import sys
from pathlib import Path

import click

from keras_preact._support.paths import local
from keras_preact.cli.common import (
    BATCH,
    POSITIVE,
    image_files,
    of_activation,
    of_network,
    of_runtime,
    on_keras,
    predictor,
    trained,
)


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="IMAGE...")
@of_network("--model")
@click.option("--top", type=POSITIVE, default=3, help="Classes to print for each image.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each image.")
@of_activation
@of_runtime
@on_keras
def classify(paths, model, weights, top, as_json, activation, runtime):
    """Classify images with a pretrained network.

    IMAGE is an image file, a folder of them, or - for standard input. --model may be a file that `export` wrote, too.
    """
    from rich.console import Console
    from rich.progress import Progress

    files = [file for path in paths for file in image_files(path)]
    width = max(len(str(file)) for file in files)
    failures = 0
    with Progress(console=Console(stderr=True, quiet=not sys.stderr.isatty()), transient=True) as progress:
        loading = progress.add_task("Loading the network", total=None)
        network = predictor(model, weights, runtime, activation) or trained(model, weights)
        predict = _call_of(network, activation)
        progress.remove_task(loading)
        bar = progress.add_task("Classifying", total=len(files))
        for start in range(0, len(files), BATCH):
            batch = files[start:start + BATCH]
            images, errors = _read(batch, network.preprocessing)
            for file, error in errors.items():
                click.echo(f"{file}: cannot be read as an image: {error}", err=True)
                if as_json:
                    click.echo(json.dumps({"file": str(file), "error": str(error)}))
            for file, best in _predictions(predict, network.labels, images, top):
                click.echo(_as_json(file, best) if as_json else _as_line(file, best, width))
            failures += len(errors)
            progress.advance(bar, len(batch))
    if failures:
        click.echo(f"{failures} of {len(files)} files could not be read.", err=True)
    return 1 if failures else 0


def _read(files, preprocessing):
    """Returns ({file: image}, {file: why it cannot be read})."""
    from keras_preact import load_image

    images, errors = {}, {}
    for file in files:
        try:
            images[file] = load_image(_opened(file), preprocessing)
        except OSError as error:
            errors[file] = error
    return images, errors


def _call_of(network, activation):
    """Returns a call from uint8 images to probabilities, of a network or a `Predictor`."""
    from keras_preact import Predictor
    from keras_preact.exporting.preparation import probabilities_of
    from keras_preact.training.evaluation import outputs_of

    if isinstance(network, Predictor):
        return network
    outputs, probabilities = outputs_of(network, network.preprocessing), probabilities_of(network, activation)
    return lambda images: probabilities(outputs(images))


def _predictions(predict, labels, images, top):
    """Yields (file, its best classes)."""
    import numpy as np

    from keras_preact import decode_predictions

    if images:
        yield from zip(images, decode_predictions(predict(np.stack(list(images.values()))), top, labels))


def _as_json(file, best):
    best = [{"label": label, "probability": probability} for label, probability in best]
    return json.dumps({"file": str(file), "predictions": best})


def _as_line(file, best, width):
    return "  ".join([f"{file!s:{width}}", *(f"{label} {probability:.1%}" for label, probability in best)])


def _opened(file):
    """Returns what is read of an image file, where "-" is standard input."""
    return io.BytesIO(sys.stdin.buffer.read()) if str(file) == "-" else file


@click.command()
@click.argument("image", metavar="IMAGE")
@of_network("--model")
@click.option("--class", "label", help="Label of the class.  [default: the most probable]")
@click.option("--output", metavar="PNG", help="Where to write the overlay.  [default: IMAGE_grad_cam.png]")
@of_activation
@on_keras
def explain(image, model, weights, label, output, activation):
    """Show where in an image a network sees a class (Grad-CAM).

    IMAGE is an image file, or - for standard input.
    """
    from keras_preact import load_image, preprocess_input
    from keras_preact._support.checks import check_choice
    from keras_preact.networks import explanation

    if output is None and image == "-":
        raise ValueError("Give --output, the name of a PNG file, for an image from standard input.")
    target = local("output", output or f"{Path(image).with_suffix('')}_grad_cam.png")
    if target.suffix.lower() != ".png":
        raise ValueError(f"--output must end in .png. Received: {target}")
    network = trained(model, weights)
    predict, classes = _call_of(network, activation), None
    if label is not None:
        check_choice("--class", label, network.labels)
        classes = [network.labels.index(label)]
    pixels = load_image(_opened(image), network.preprocessing)
    x = preprocess_input(pixels, network.preprocessing)[None]
    (heat,), (index,) = explanation.grad_cam(network, x, classes)
    (probabilities,) = predict(pixels[None])
    explanation.overlay(pixels, heat).save(target)
    click.echo(f"{target}  {network.labels[index]} {probabilities[index]:.1%}")


VERBS = (classify, explain)
