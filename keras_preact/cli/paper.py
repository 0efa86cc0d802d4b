"""Verbs that reproduce the paper: reproduce, report, signals."""
import math

import click

from keras_preact.cli.common import POSITIVE, of_engine, on_keras, print_table


@click.command()
@click.argument("table", required=False)
@click.option("--row", help="Only rows that contain this text.")
@click.option("--seeds", type=POSITIVE, help="Runs of each row.  [default: the paper's, 5 on CIFAR, 1 on ImageNet]")
@click.option("--scale", type=float, default=1.0, help="Part of the epochs; reported apart.")
@click.option("--output", default="runs/paper", metavar="FOLDER")
@click.option("--data-dir", help="Folder of .npz files or image folders.  [default: TensorFlow Datasets]")
@click.option("--list", "only_list", is_flag=True, help="Show the rows and what there is of them; train nothing.")
@on_keras
@of_engine
def reproduce(table, row, seeds, scale, output, data_dir, only_list, engine):
    """Train the rows of a TABLE of the paper; what is done is skipped.

    TABLE is table1 to table5, gates for the search of the gates' bias, or resnet101 for what Section 5 tells of it.
    """
    from keras_preact.paper import experiments

    rows = experiments.find(table, row)
    if only_list:
        print_table(("Table", "Row", "Data", "Published error (%)", "Ours"), [
            (row.table, row.row, row.data, row.published, ", ".join(map(str, experiments.results(row, output))))
            for row in rows
        ])
        return
    if table is None:
        raise click.UsageError(f"Name a table, {', '.join(experiments.TABLES)}, or see all rows with --list.")
    experiments.reproduce(rows, output, seeds, scale, data_dir, engine)
    click.echo(f"keras-preact report --output {output} writes the tables.")


@click.command()
@click.option("--output", default="runs/paper", metavar="FOLDER", help="Of `reproduce`.")
@on_keras
def report(output):
    """Write the paper's tables and figures beside what was trained."""
    from keras_preact.paper import reporting

    click.echo(reporting.report(output))


@click.command()
@click.option("--depth", type=POSITIVE, default=110, help="Layers.")
@click.option("--data", help="TensorFlow data set, .npz file or folder.  [default: noise]")
@click.option("--steps", type=int, default=0, help="Of training before the measurement.")
@click.option("--output", default="signals.png", metavar="PNG")
@on_keras
def signals(depth, data, steps, output):
    """Plot how signals and gradients pass through each shortcut and order."""
    from keras_preact.paper import signals

    found = signals.plot(output, depth, data, steps)
    print_table(
        ("Compared", "Unit", "Output, first to last unit (RMS)", "Gradient, first to last unit (RMS)"),
        [
            (panel, label, *(f"{_finite(values[0])} to {_finite(values[-1])}" for values in of_units))
            for (panel, label), of_units in found.items()
        ],
    )
    click.echo(f"See {output}")


def _finite(value):
    return f"{value:.3g}" if math.isfinite(value) else "beyond float32"


VERBS = (reproduce, report, signals)
