"""Verbs that tell what there is, without a backend: list, show."""
import dataclasses
import itertools

import click

from keras_preact.cli.common import as_json, by, print_json, print_table


@click.command("list")
@click.argument("pattern", default="*")
@as_json
def list_(pattern, as_json):
    """List networks and their weights.

    PATTERN is one of names, such as 'PreAct*' or '*110'.
    """
    from keras_preact import list_models
    from keras_preact.zoo import index

    models = list_models(pattern)
    weights = {info.name: index.of(info.name) for info in models}
    if as_json:
        print_json([info._asdict() | {"weights": list(map(_told, weights[info.name]))} for info in models])
        return
    print_table(("Network", "Input", "Parameters", "Multiply-adds", "Weights (test error)"), [(
        info.name, by(info.input_size), f"{info.parameters:,}", f"{info.multiply_adds:,}", ", ".join(
            f"{' = '.join(weight.tags)} ({index.percent(weight)}) {weight.where}" for weight in weights[info.name]
        ),
    ) for info in models])
    legend = {}
    for weight in itertools.chain(*weights.values()):
        legend.setdefault((weight.source, weight.licence, weight.measured["selection"]), {})[weight.dataset] = None
    for (source, licence, selection), datasets in legend.items():
        click.echo(f"{source}, {', '.join(datasets)}: {index.CITATIONS[source]}; {licence}; error: {selection}")


def _told(weight):
    """Returns what is told of a published weight, whoever published it, as JSON."""
    return {name: getattr(weight, name) for name in (
        "tag", "tags", "source", "dataset", "licence", "citation", "measured", "size", "hash", "where",
    )} | {"error": weight.measured["error"]}


@click.command()
@click.argument("name")
@as_json
def show(name, as_json):
    """Show one network: its stages, costs and weights."""
    from keras_preact.networks import costs
    from keras_preact.networks.architectures import named
    from keras_preact.zoo import index

    config = named(name)
    stages, total, weights = costs.stages(config), costs.count(config), index.of(name)
    if as_json:
        print_json({
            "name": name, "config": dataclasses.asdict(config),
            "stages": [stage._asdict() | {"cost": stage.cost._asdict()} for stage in stages],
            "total": total._asdict(),
            "weights": [dataclasses.asdict(weight) | _told(weight) for weight in weights],
        })
        return
    click.echo(f"{name}: {config.unit} units, {config.order}, shortcut {config.shortcut}")
    rows = [(stage.name, stage.layers, by(stage.size), *_cost(stage.cost)) for stage in stages]
    columns = "Stage", "Layers", "Output", "Parameters", "Multiply-adds"
    print_table(columns, rows, total=("total", "", "", *_cost(total)))
    for weight in weights:
        size = f"{weight.size:,} bytes" if weight.size else "size unknown until it is fetched"
        click.echo(
            f"weights={' = '.join(map(repr, weight.tags))}: {index.error(weight)}, crop {weight.measured['crop']}, "
            f"{weight.where}\n"
            f"  {weight.source}: {weight.citation}; {weight.licence}; {size}; {weight.hash or 'hash as on the Hub'}"
        )


def _cost(cost):
    return f"{cost.parameters:,}", f"{cost.multiply_adds:,}"


VERBS = (list_, show)
