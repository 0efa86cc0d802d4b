"""Verbs on training: train, fine-tune, runs, evaluate, recipes."""
import dataclasses
import functools
import json

import click

from keras_preact._support.paths import local
from keras_preact.cli.common import (
    DATA,
    POSITIVE,
    as_json,
    by,
    network,
    of_engine,
    of_network,
    of_runtime,
    on_keras,
    predictor,
    print_json,
    print_table,
    trained,
)


def of_run(verb):
    """Adds the options of a verb that makes a run: `output`, `seed`, `hold_out` and `changes` of its recipe."""
    @click.option("--output", required=True, metavar="FOLDER", help="For the log, checkpoints and final weights.")
    @click.option("--epochs", type=POSITIVE, help="Instead of the recipe's; its schedule and warm-up scale with them.")
    @click.option("--batch-size", type=POSITIVE, help="Instead of the recipe's.")
    @click.option("--set", "assignments", multiple=True, metavar="FIELD=VALUE",
                  help="Any other field of the recipe, as JSON: nesterov=true, drops=[0.5,0.75].")
    @click.option("--seed", type=int, default=1, help="Of everything random.")
    @click.option("--hold-out", type=click.IntRange(min=0), metavar="IMAGES", default=0,
                  help="Measure on so many training images, held out, instead of on the test images.")
    @functools.wraps(verb)
    def of_recipe(epochs, batch_size, assignments, **options):
        changes = dict(map(_assignment, assignments))
        if "warmup_steps" in changes:
            changes = {"warmup_of": None} | changes  # meant for this run
        given = {"epochs": epochs, "batch_size": batch_size}
        return verb(changes=changes | {field: value for field, value in given.items() if value}, **options)

    return of_recipe


def _end(output, hold_out, log):
    measured = "held-out" if hold_out else "test"
    click.echo(f"{log[-1]['test_error']} % {measured} error after the last of {len(log)} epochs; see {output}")


@click.command()
@click.argument("model", metavar="NETWORK")
@click.option("--data", required=True, help=DATA)
@click.option("--recipe", default="cifar_paper", help="`recipes` lists them.")
@of_run
@click.option("--weights", help="To start from: a tag, a file, or hf://owner/name.  [default: random ones]")
@on_keras
@of_engine
def train(model, data, recipe, output, changes, seed, hold_out, weights, engine):
    """Train a network by a recipe; the same command goes on where it was stopped.

    NETWORK is the name of one.
    """
    from keras_preact import train
    from keras_preact.training import recipes

    recipe = dataclasses.replace(recipes.find(recipe), **changes)
    if weights:
        from keras_preact._support.settings import random_seed
        from keras_preact.networks.architectures import named
        from keras_preact.networks.carried import config_of
        from keras_preact.zoo import builders

        named(model)
        with random_seed(seed):  # of a last layer that the weights may lack
            weights = getattr(builders, model)(weights=weights)
        model = config_of(weights)
    _end(output, hold_out, train(model, data, recipe, output, seed, engine, hold_out, weights=weights))


@click.command("fine-tune")
@click.argument("data")
@of_network("--from")
@click.option("--size", type=POSITIVE, help="Side of the crops of photographs.  [default: the weights']")
@of_run
@on_keras
@of_engine
def fine_tune(data, model, weights, size, output, changes, seed, hold_out, engine):
    """Train a pretrained network for other classes; the same command goes on where it was stopped.

    DATA is a folder of class folders of photographs, an .npz file or a TensorFlow data set.
    """
    from keras_preact import fine_tune
    from keras_preact.training.runs import LOG, read_log

    network = trained(model, weights)
    fine_tune(network, data, output, size, seed, engine, hold_out, **changes)
    _end(output, hold_out, read_log(local("output", output) / LOG))


@click.command()
@click.argument("folder", default="runs")
@as_json
@on_keras
def runs(folder, as_json):
    """List the training runs in a folder: how far they are, and the time that is left.

    FOLDER is searched with all folders in it.  [default: runs]
    """
    import datetime

    from keras_preact.training.runs import found

    rows = found(folder)
    if as_json:
        print_json(rows)
        return
    if not rows:
        raise ValueError(f"There is no training run in {folder}.")
    print_table(("Run", "Network", "Data", "Recipe", "Epoch", "Error (%)", "State", "Left"), [
        (
            row["folder"], row["network"], row["data"], row["recipe"], f"{row['epoch']} of {row['epochs']}",
            "" if row["error"] is None else f"{row['error']:.2f}", row["state"],
            str(datetime.timedelta(seconds=row["left"])) if row["left"] else "",
        )
        for row in rows
    ])


def _assignment(text):
    from keras_preact.training.recipes import Recipe

    name, _, value = text.partition("=")
    fields = [field.name for field in dataclasses.fields(Recipe) if field.name not in ("name", "source")]
    if name not in fields:
        raise ValueError(f"--set takes FIELD=VALUE with a field among {', '.join(fields)}. Received: {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


@click.command()
@of_network()
@click.option("--data", required=True, help=DATA)
@click.option("--views", default="single", help="single, flip or ten_crop.")
@click.option("--crop", type=POSITIVE, help="Side of the square views in pixels.  [default: the weights']")
@click.option("--resize", type=POSITIVE, help="Shorter side of photographs before the crop.")
@click.option("--per-class", is_flag=True, help="Print the error of each class.")
@click.option("--confusion", metavar="PNG", help="Plot the confusion matrix there.")
@as_json
@of_runtime
@on_keras
def evaluate(model, weights, data, views, crop, resize, per_class, confusion, as_json, runtime):
    """Measure the test error of a network.

    NETWORK is the name of one, a .keras or exported file, the output folder of a training run, or hf://owner/name.
    """
    from keras_preact import evaluate
    from keras_preact.zoo import index

    # Of any size, so that the crop may be another than the weights were trained on.
    predict = predictor(model, weights, runtime)
    model = predict or network(model, weights, (None, None, None))
    preprocessing = getattr(model, "preprocessing", None)
    report = evaluate(model, data, preprocessing, views, crop, resize, verbose=0 if as_json else "auto")
    published = index.published(getattr(model, "name", ""), report.dataset)
    if as_json:
        print_json(_told(report, published, per_class))
    else:
        _print(report, published, per_class)
    if confusion:
        report.plot(confusion)


def _told(report, published, per_class):
    told = {name: getattr(report, name) for name in ("dataset", "views", "crop", "images", "wrong", "wrong5", "notes")}
    told |= {"top1_error": report.top1_error, "top5_error": report.top5_error, "published": published}
    if per_class:
        told["per_class"] = [
            {"label": label, "images": images, "error": error if images else None}
            for label, images, error in report.per_class()
        ]
    return told


def _print(report, published, per_class):
    click.echo(
        f"{report.top1_error:.2f} % top-1 and {report.top5_error:.2f} % top-5 error: {report.wrong} and "
        f"{report.wrong5} of {report.images} test images of {report.dataset}, {by(report.crop)}, views: {report.views}"
    )
    for note in report.notes:
        click.echo(f"  {note}")
    for row in published:
        errors = " / ".join(filter(None, (row["top1_error"], row["top5_error"])))
        click.echo(f"  published: {errors} % ({row['source']}, crop {row['crop']}; {row['reference']})")
    if per_class:
        rows = [(label, str(images), f"{error:.2f}") for label, images, error in report.per_class()]
        print_table(("Class", "Images", "Error (%)"), rows)


@click.command()
@click.argument("name", required=False)
@as_json
def recipes(name, as_json):
    """List the training recipes, or show one."""
    from keras_preact.training import recipes

    chosen = [dataclasses.asdict(recipe) for recipe in ([recipes.find(name)] if name else recipes.RECIPES.values())]
    if as_json:
        print_json(chosen[0] if name else chosen)
        return
    for values in chosen:
        click.echo(f"{values.pop('name')}: {values.pop('source')}")
        for field, value in values.items() if name else ():
            click.echo(f"  {field} = {json.dumps(value)}")


VERBS = (train, fine_tune, runs, evaluate, recipes)
