"""Verbs that fetch and publish weights: convert, pull, push."""
from pathlib import Path

import click

from keras_preact.cli.common import on_keras


@click.command()
@click.argument("source")
@click.argument("file")
@click.option("--name", help="What that zoo calls the network.  [default: what the file is called]")
@click.option("--output", metavar="FILE.weights.h5", help="File to write.")
@click.option("--push", metavar="owner/name", help="Measure it and publish it on the Hugging Face Hub.")
@click.option("--data", help="Of --push: TensorFlow data set, .npz file or folder to measure it on.")
@click.option("--licence", help="Of --push: SPDX name of the weights' licence.")
@on_keras
def convert(source, file, name, output, push, data, licence):
    """Turn weights of another zoo into a file that our builders take.

    SOURCE is timm, keras_applications, pytorchcv, image_classifiers, torch7 or torchvision. FILE is what that zoo
    publishes; for timm also the folder of a repository.
    """
    from keras_preact import convert, evaluate, push_to_hub

    if not (output or push):
        raise ValueError("Give --output FILE.weights.h5, or --push owner/name with --data and --licence.")
    if push and not (data and licence):
        raise ValueError("What is published is measured first, and has a licence: --push needs --data and --licence.")
    model, report = convert(source, file, name, output)
    click.echo(report)
    if output:
        click.echo(f"written: {report.architecture}(weights={output!r})")
    if push:
        measured = evaluate(model, data, report.preprocessing)
        click.echo(f"{measured.top1_error:.2f} % top-1 error on {measured.images} test images of {measured.dataset}")
        for note in measured.notes:
            click.echo(f"  {note}")
        published = push_to_hub(model, push, report.metadata(measured, Path(file).name, licence))
        click.echo(f"Published and read back: hf://{published.repository}@{published.commit}")


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@on_keras
def pull(names):
    """Fetch weights into the cache, for use without a network.

    NAME is a network, a pattern, or owner/name[@revision].
    """
    from keras_preact import pull

    for name in names:
        for path in pull(name):
            click.echo(path)


@click.command()
@click.argument("folder", metavar="RUN_DIR")
@click.argument("repository", metavar="owner/name")
@click.option("--private", is_flag=True, help="Only its owner sees the repository.")
@click.option("--revision", default="main", help="Branch.")
@click.option("--dry-run", is_flag=True, help="Show the files and the card, and publish nothing.")
@click.option("--output", metavar="FOLDER", help="Keep the files there; it must be new.")
@on_keras
def push(folder, repository, private, revision, dry_run, output):
    """Publish a finished training run on the Hugging Face Hub.

    RUN_DIR is the output folder of the run; the repository is made if there is none.
    """
    import keras

    from keras_preact import push_to_hub

    keras.config.set_image_data_format("channels_last")
    published = push_to_hub(folder, repository, private=private, revision=revision, dry_run=dry_run, folder=output)
    for file, size in published.files.items():
        click.echo(f"{size:>12,}  {file}")
    if published.commit:
        click.echo(f"Published and read back: hf://{published.repository}@{published.commit}")
    else:
        click.echo(f"\nNothing was published. The card would be:\n\n{published.card}")


VERBS = (convert, pull, push)
