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
@click.option("--tags", default="*", help="Of a network's weights those of this tag, or pattern of tags.")
@click.option("--dry-run", is_flag=True, help="Tell what would be fetched, and fetch nothing.")
@on_keras
def pull(names, tags, dry_run):
    """Fetch weights into the cache, for use without a network.

    NAME is a network, a pattern, or owner/name[@revision]. Before anything is fetched of a network, ours or another
    zoo's, its source, licence and size are told.
    """
    from keras_preact import pull
    from keras_preact.zoo import resolving

    for name in names:
        if "/" in name:
            click.echo(f"every file of hf://{name}", err=True)
        else:
            _tell(resolving.to_pull(name, tags))
    for name in () if dry_run else names:
        for path in pull(name, tags):
            click.echo(path)


def _tell(weights):
    """Prints a line for each weight that is not on this machine; an unknown size is that of its parameters."""
    from keras_preact.networks import costs
    from keras_preact.networks.architectures import CONFIGS

    for weight in weights:
        if weight.where == "remote":
            size = weight.size or 4 * costs.count(CONFIGS[weight.architecture]).parameters
            click.echo(
                f"{weight.architecture}(weights={weight.tag!r}): {weight.source}, {weight.licence}, about "
                f"{size / 1e6:.0f} MB; {weight.citation}", err=True,
            )


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
