"""Verbs that tell what there is, without a backend: list, show."""
import dataclasses

import click

from keras_preact.cli.common import as_json, by, print_json, print_table


@click.command("list")
@click.argument("pattern", default="*")
@as_json
def list_(pattern, as_json):
    """List networks and their weights.

    PATTERN is one of names, such as 'PreAct*' or '*110'.
    """
    from keras_preact import list_models, list_weights
    from keras_preact.zoo import index

    models, weights, others = list_models(pattern), list_weights(pattern), index.upstream()
    if as_json:
        print_json([info._asdict() | {"weights": _weights_of(info.name, weights, others)} for info in models])
        return
    print_table(("Network", "Input", "Parameters", "Multiply-adds", "Weights (test error, or whose)"), [(
        info.name, by(info.input_size), f"{info.parameters:,}", f"{info.multiply_adds:,}", ", ".join(
            f"{w['tag']} ({w['source']})" if "source" in w else f"{w['tag']} ({w['error']:.2f} %) {w['where']}"
            for w in _weights_of(info.name, weights, others)
        ),
    ) for info in models])


def _weights_of(name, weights, others):
    """Returns what is told of the weights of an architecture, ours and then those of other zoos."""
    ours = [
        {"tag": w.tag, "error": w.measured["error"], "where": w.where} for w in weights if w.architecture == name
    ]
    return ours + [{"tag": w.tag, "source": w.source} for w in others if w.architecture == name]


@click.command()
@click.argument("name")
@as_json
def show(name, as_json):
    """Show one network: its stages, costs and weights."""
    from keras_preact import list_weights
    from keras_preact.networks import costs
    from keras_preact.networks.architectures import named

    config = named(name)
    stages, total, weights = costs.stages(config), costs.count(config), list_weights(name)
    if as_json:
        print_json({
            "name": name, "config": dataclasses.asdict(config),
            "stages": [stage._asdict() | {"cost": stage.cost._asdict()} for stage in stages],
            "total": total._asdict(),
            "weights": [dataclasses.asdict(weight) | {"where": weight.where} for weight in weights],
        })
        return
    click.echo(f"{name}: {config.unit} units, {config.order}, shortcut {config.shortcut}")
    rows = [(stage.name, stage.layers, by(stage.size), *_cost(stage.cost)) for stage in stages]
    columns = "Stage", "Layers", "Output", "Parameters", "Multiply-adds"
    print_table(columns, rows, total=("total", "", "", *_cost(total)))
    for weight in weights:
        click.echo(
            f"weights={weight.tag!r}: {weight.measured['error']:.2f} % error on {weight.measured['split']} "
            f"({weight.measured['selection']}), {weight.made['epochs']} epochs of {weight.made['recipe']}, "
            f"{weight.licence}, {weight.where}"
        )


def _cost(cost):
    return f"{cost.parameters:,}", f"{cost.multiply_adds:,}"


VERBS = (list_, show)
