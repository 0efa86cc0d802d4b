"""The paper's tables and figures, published and trained here, side by side."""
import importlib.util

from keras_preact._support import atomic
from keras_preact._support.drawing import drawing
from keras_preact._support.paths import local
from keras_preact.paper.experiments import EXPERIMENTS, TABLES, find, results
from keras_preact.training import recipes, runs

# Which runs a figure of the paper shows: its title, and the table and rows.
FIGURES = {
    "fig1": (
        "Fig. 1", "table3", ("ResNet-1001, baseline unit, cifar10", "ResNet-1001, pre-activation unit, cifar10")
    ),
    "fig3a": ("Fig. 3(a)", "table1", ("original", "constant scaling 0.5, 0.5")),
    "fig3b": ("Fig. 3(b)", "table1", ("original", "exclusive gating, bias -6")),
    "fig3c": ("Fig. 3(c)", "table1", ("original", "shortcut-only gating, bias 0")),
    "fig3d": ("Fig. 3(d)", "table1", ("original", "1x1 conv shortcut")),
    "fig6left": ("Fig. 6, left", "table2", ("original, ResNet-110", "bn after addition, ResNet-110")),
    "fig6right": ("Fig. 6, right", "table2", ("original, ResNet-164", "full preactivation, ResNet-164")),
}


def report(output="runs/paper"):
    """Writes what was trained in `output` beside the paper: report.md, report.csv, and figures as PNG.

    Full-length results and shortened ones have columns of their own. Curves are those of the first seed; where there is
    no full-length run the longest shortened ones are drawn, and the title says so.

    Returns:
        The text of report.md.
    """
    output = local("output", output)
    found = {experiment: results(experiment, output) for experiment in EXPERIMENTS}
    lines = ["# The paper's tables", "", (
        "Test error in percent after the last epoch: median (mean ± standard deviation, number of runs). "
        'Of ImageNet top-1 / top-5. "fail" is an error above 20 %, as in the paper.'
    )]
    for table, title in TABLES.items():
        lines += ["", f"## {title}", ""]
        lines += ["| row | data | paper | ours, full length | ours, shortened |", "|---|---|---|---|---|"]
        for experiment in find(table):
            full = next((str(result) for result in found[experiment] if result.full), "")
            short = ", ".join(str(result) for result in found[experiment] if not result.full)
            lines.append(f"| {experiment.row} | {experiment.data} | {experiment.published} | {full} | {short} |")
    output.mkdir(parents=True, exist_ok=True)
    figures = [*_figures(output, found), *_depths(output, found)] if importlib.util.find_spec("matplotlib") else []
    if figures:
        lines += ["", "## Figures", ""] + [f"![{name}]({name}.png)" for name in figures]
    text = "\n".join(lines) + "\n"
    atomic.write_text(output / "report.md", text)
    rows = [_row(experiment, result) for experiment in EXPERIMENTS for result in found[experiment]]
    if rows:
        atomic.write_csv(output / "report.csv", rows)
    return text


def _row(experiment, result):
    return {
        "table": experiment.table, "row": experiment.row, "data": experiment.data,
        "published": experiment.published, "epochs": result.epochs, "full_length": result.full,
        "runs": len(result.errors), "median": f"{result.median:.2f}", "mean": f"{result.mean:.2f}",
        "std": f"{result.std:.2f}", "errors": _listed(result.errors),
        "median5": "" if result.median5 is None else f"{result.median5:.2f}", "errors5": _listed(result.errors5),
    }


def _listed(errors):
    return " ".join(f"{error:.2f}" for error in errors.values())


def _figures(output, found):
    """Draws the figures of the paper of which there are runs, and yields their names."""
    for name, (title, table, rows) in FIGURES.items():
        experiments = [experiment for experiment in find(table) if experiment.row in rows]
        # The longest runs that all curves have, or as many of them as there are.
        lengths = [{result.epochs for result in found[experiment]} for experiment in experiments]
        common = set.intersection(*lengths) or set.union(*lengths)
        if not common:
            continue
        epochs, logs = max(common), {}
        for experiment in experiments:
            for result in found[experiment]:
                log = runs.read_log(_folder(output, experiment, result) / runs.LOG)
                if result.epochs == epochs and log:
                    logs[experiment.row] = log
        full = epochs == recipes.find(experiments[0].recipe).epochs
        runs.plot(logs, output / f"{name}.png", title + ("" if full else f", shortened to {epochs} epochs"))
        yield name


def _folder(output, experiment, result):
    name = experiment.run if result.full else f"{experiment.run}-{result.epochs}epochs"
    return output / name / f"seed{min(result.errors)}"


def _depths(output, found):
    """Draws error against depth on CIFAR-10 for both units, of full-length runs, and yields the figure's name."""
    points = {}
    for experiment, of_row in found.items():
        plain = experiment.config.join == ("plain",) and experiment.config.unit != "single"
        if experiment.data == "cifar10" and plain and experiment.recipe == "cifar_paper" and of_row and of_row[0].full:
            points.setdefault(experiment.config.order, {})[experiment.config.depth] = of_row[0].median
    points = {order: points[order] for order in ("original", "full_preactivation") if order in points}
    if not points:
        return
    with drawing(output / "depth.png", figsize=(6, 4)) as axes:
        for order, of_depth in points.items():
            axes.semilogx(*zip(*sorted(of_depth.items())), "o-", label=order.replace("_", " "))
        axes.set(xlabel="layers", ylabel="test error (%)", title="CIFAR-10, median of full-length runs")
        axes.legend()
    yield "depth"
