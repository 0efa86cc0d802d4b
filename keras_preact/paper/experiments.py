"""The experiments of the paper's tables as data, training them, and what that came to."""
import dataclasses
import json
import statistics
from pathlib import Path

from keras_preact._support import atomic
from keras_preact._support.checks import check_choice
from keras_preact._support.paths import local
from keras_preact.data.arrays import HOLDOUT
from keras_preact.networks.config import NetworkConfig
from keras_preact.training import evaluation, recipes, runs
from keras_preact.training.engine import Diverged, train

DIVERGED = "diverged.txt"
FAIL = 20.0  # percent; the paper writes "fail" for a higher error


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One row of the paper's tables.

    Args:
        table: among `TABLES`: "table1" to "table5", and what the text alone tells.
        row: what the row says, in the paper's words.
        config: a `NetworkConfig`.
        data: name of the data set.
        recipe: name of the recipe.
        error: published test error in percent; None for "fail", an error above 20 %.
        error5: published top-5 error in percent, of ImageNet.
        test: (crop, resize) of the test images in pixels, of ImageNet.
        spread: published mean and standard deviation of the error, in percent.
        hold_out: measured on so many training images, held out, of which the paper publishes no error.
    """

    table: str
    row: str
    config: NetworkConfig
    data: str
    recipe: str
    error: float | None
    error5: float | None = None
    test: tuple | None = None
    spread: tuple | None = None
    hold_out: int = 0

    @property
    def published(self):
        """What the paper says: the error in percent, mean and deviation of it, and the top-5 error."""
        if self.hold_out:
            return ""
        if self.error is None:
            return "fail"
        if self.test:
            return f"{self.error:.1f} / {self.error5:.1f}"
        return f"{self.error:.2f}" + (" ({:.2f} ± {:.2f})".format(*self.spread) if self.spread else "")

    @property
    def seeds(self):
        """Runs behind the paper's figure: of CIFAR it gives the median of 5, and else trained one."""
        return 1 if self.test or self.hold_out else 5

    @property
    def run(self):
        """Name of the training run, which rows share that differ in nothing it depends on."""
        config = self.config
        join = config.join if config.join != ("plain",) else ()
        parts = (
            self.data, config.depth, config.unit, config.order, config.shortcut, *join,
            *(() if self.recipe == "cifar_paper" else (self.recipe,)),
            *((f"heldout{self.hold_out}",) if self.hold_out else ()),
        )
        return "-".join(map(str, parts))


def _cifar(table, row, depth, error, unit="basic", data="cifar10", recipe="cifar_paper", spread=None, **changes):
    return Experiment(table, row, NetworkConfig.cifar(depth, unit, **changes), data, recipe, error, spread=spread)


def _imagenet(row, depth, recipe, test, error, error5, table="table5", **changes):
    config = NetworkConfig.imagenet(depth, **changes)
    return Experiment(table, row, config, "imagenet2012", recipe, error, error5, test)


def _table1():
    def row(name, error, join="plain", **changes):
        return _cifar("table1", name, 110, error, order="original", join=join, **changes)

    return [
        row("original", 6.61),
        row("constant scaling 0, 1 (plain net)", None, ("scaled", 0, 1)),
        row("constant scaling 0.5, 1", None, ("scaled", 0.5, 1)),
        row("constant scaling 0.5, 0.5", 12.35, ("scaled", 0.5, 0.5)),
        *(row(f"exclusive gating, bias {bias}", None, ("exclusive_gate", bias)) for bias in range(0, -6, -1)),
        row("exclusive gating, bias -6", 8.70, ("exclusive_gate", -6)),
        row("exclusive gating, bias -7", 9.81, ("exclusive_gate", -7)),
        row("shortcut-only gating, bias 0", 12.86, ("shortcut_gate", 0)),
        row("shortcut-only gating, bias -6", 6.91, ("shortcut_gate", -6)),
        row("1x1 conv shortcut", 12.22, shortcut="project_always"),
        row("dropout shortcut 0.5", None, ("dropout", 0.5)),
    ]


def _table2():
    errors = {
        "original": (6.61, 5.93), "bn_after_addition": (8.17, 6.50), "relu_before_addition": (7.84, 6.14),
        "relu_preactivation": (6.71, 5.91), "full_preactivation": (6.37, 5.46),
    }
    return [
        _cifar("table2", f"{order.replace('_', ' ')}, ResNet-{depth}", depth, error, unit, order=order)
        for order, pair in errors.items() for (depth, unit), error in zip(((110, "basic"), (164, "bottleneck")), pair)
    ]


def _table3():
    rows = (
        ("cifar10", "ResNet-110 (1layer skip)", 110, "single", 9.90, 8.91),
        ("cifar10", "ResNet-110", 110, "basic", 6.61, 6.37),
        ("cifar10", "ResNet-164", 164, "bottleneck", 5.93, 5.46),
        ("cifar10", "ResNet-1001", 1001, "bottleneck", 7.61, 4.92),
        ("cifar100", "ResNet-164", 164, "bottleneck", 25.16, 24.33),
        ("cifar100", "ResNet-1001", 1001, "bottleneck", 27.82, 22.71),
    )
    units = (("original", "baseline"), ("full_preactivation", "pre-activation"))
    return [
        _cifar("table3", f"{name}, {words} unit, {data}", depth, error, unit, data, order=order)
        for data, name, depth, unit, *pair in rows for (order, words), error in zip(units, pair)
    ]


def _table4():
    def row(name, depth, error, unit="bottleneck", order="full_preactivation", **kwargs):
        return _cifar("table4", name, depth, error, unit, order=order, **kwargs)

    return [
        row("ResNet-110 [1]", 110, 6.61, "basic", "original"),
        row("ResNet-1202 [1]", 1202, 7.93, "basic", "original"),
        row("ResNet-164 [ours]", 164, 5.46),
        row("ResNet-1001 [ours]", 1001, 4.92, spread=(4.89, 0.14)),
        # By the released code, which has more of its own than the batch.
        row("ResNet-1001 [ours], batch 64", 1001, 4.62, recipe="cifar_torch", spread=(4.69, 0.20)),
        row("ResNet-164 [1], cifar100", 164, 25.16, order="original", data="cifar100"),
        row("ResNet-1001 [1], cifar100", 1001, 27.82, order="original", data="cifar100"),
        row("ResNet-164 [ours], cifar100", 164, 24.33, data="cifar100"),
        row("ResNet-1001 [ours], cifar100", 1001, 22.71, data="cifar100", spread=(22.68, 0.22)),
    ]


def _table5():
    small, large = (224, 256), (320, 320)
    return [
        _imagenet("ResNet-152, original, 224", 152, "imagenet_paper", small, 23.0, 6.7, order="original"),
        _imagenet("ResNet-152, original, 320", 152, "imagenet_paper", large, 21.3, 5.5, order="original"),
        _imagenet("ResNet-152, pre-act, 320", 152, "imagenet_paper", large, 21.1, 5.5),
        _imagenet("ResNet-200, original, 320", 200, "imagenet_paper", large, 21.8, 6.0, order="original"),
        _imagenet("ResNet-200, pre-act, 320", 200, "imagenet_paper", large, 20.7, 5.3),
        _imagenet("ResNet-200, pre-act, 320, scale and aspect ratio", 200, "imagenet_torch", large, 20.1, 4.8),
    ]


def _gates():
    """Section 3.1: the bias is chosen on training images. The paper says by cross-validation, not in how many parts."""
    return [
        Experiment(
            "gates", f"exclusive gating, bias {bias}" + (", the paper's choice" if bias == -6 else ""),
            NetworkConfig.cifar(110, "basic", order="original", join=("exclusive_gate", bias)), "cifar10",
            "cifar_paper", None, hold_out=HOLDOUT,
        ) for bias in range(0, -11, -1)
    ]


def _resnet101():
    rows = (("original", "original", 23.6, 7.1), ("BN after addition", "bn_after_addition", 24.6, 7.5))
    return [
        _imagenet(f"ResNet-101, {words}", 101, "imagenet_paper", (224, 256), *errors, table="resnet101", order=order)
        for words, order, *errors in rows
    ]


EXPERIMENTS = (*_table1(), *_table2(), *_table3(), *_table4(), *_table5(), *_gates(), *_resnet101())
TABLES = {f"table{i}": f"Table {i}" for i in range(1, 6)} | {
    "gates": f"Section 3.1: the bias of exclusive gates, on {HOLDOUT:,} held-out training images",
    "resnet101": "Section 5: batch normalization after addition on ImageNet",
}


def find(table=None, row=None):
    """Returns the experiments of a table, default all, or those of its rows that contain the text `row`.

    Raises:
        ValueError: no such table or row; the message lists those there are.
    """
    if table is not None:
        check_choice("table", table, TABLES)
    rows = [experiment for experiment in EXPERIMENTS if table in (None, experiment.table)]
    found = [experiment for experiment in rows if row is None or row.lower() in experiment.row.lower()]
    if not found:
        names = "\n  ".join(experiment.row for experiment in rows)
        raise ValueError(f"No row of {table or 'any table'} contains {row!r}. Its rows are:\n  {names}")
    return found


def reproduce(experiments, output="runs/paper", seeds=None, scale=1.0, data_dir=None, engine=None, verbose="auto"):
    """Trains what `experiments` need; what is done is skipped, and what was interrupted goes on.

    Args:
        experiments: as `find` returns them.
        output: folder; each run gets its own in it, and rows share runs that do not differ.
        seeds: trains with the seeds 1 to `seeds`; default as many as the paper, 5 on CIFAR and one on ImageNet.
        scale: epochs over those of the recipe, for small machines; such results are reported apart from full ones.
        data_dir: folder of .npz files, or folders of images, named after the data sets; default TensorFlow Datasets.
        engine, verbose: as of `train`.

    Returns:
        The folders of the runs.

    Raises:
        ValueError: as `train`; a scale that is not above 0 and at most 1.
    """
    if not 0 < scale <= 1:
        raise ValueError(f"`scale` must be above 0 and at most 1. Received: {scale}")
    of_run = {}
    for experiment in experiments:
        of_run.setdefault(experiment.run, []).append(experiment)
    folders = []
    counts = {name: seeds or rows[0].seeds for name, rows in of_run.items()}
    jobs = [(seed, name) for seed in range(1, max(counts.values()) + 1) for name in of_run if seed <= counts[name]]
    for i, (seed, name) in enumerate(jobs, start=1):
        experiment = of_run[name][0]
        recipe = recipes.find(experiment.recipe)
        recipe = dataclasses.replace(recipe, epochs=max(1, round(scale * recipe.epochs)))
        folder = Path(local("output", output), name if scale == 1 else f"{name}-{recipe.epochs}epochs", f"seed{seed}")
        if verbose:
            print(f"[{i}/{len(jobs)}] {folder}", flush=True)
        data = _data(experiment.data, data_dir)
        _train(experiment, data, recipe, folder, seed, engine, verbose)
        for experiment in of_run[name]:
            if experiment.test and (folder / runs.FINAL).exists():
                _measure(experiment, folder, data, verbose)
        folders.append(folder)
    return folders


def _data(name, data_dir):
    if data_dir is None:
        return name
    folder = local("data_dir", data_dir)
    return next((path for path in (folder / f"{name}.npz", folder / name) if path.exists()), name)


def _train(experiment, data, recipe, folder, seed, engine, verbose):
    if (folder / runs.FINAL).exists() or (folder / DIVERGED).exists():
        return
    try:
        train(experiment.config, data, recipe, folder, seed, engine, experiment.hold_out, verbose)
    except Diverged as error:
        text = f"{error}\n"
        atomic.write_text(folder / DIVERGED, text)


def _measure(experiment, folder, data, verbose):
    """Writes the errors of a run at the crop of its row, if they are not there yet."""
    path = folder / _measured(experiment)
    if path.exists():
        return
    model, _ = runs.load_run(folder, (None, None, None))
    crop, resize = experiment.test
    measured = evaluation.evaluate(model, data, model.preprocessing, crop=crop, resize=resize, verbose=verbose)
    errors = {"top1_error": measured.top1_error, "top5_error": measured.top5_error}
    atomic.write_text(path, json.dumps(errors) + "\n")


def _measured(experiment):
    crop, resize = experiment.test
    return f"crop{crop}-resize{resize}.json"


@dataclasses.dataclass(frozen=True)
class Result:
    """What the runs of one experiment ended with, all of so many epochs.

    Args:
        epochs: of each run.
        full: whether these are all epochs of the recipe.
        errors: {seed: test error in percent after the last epoch}; 100 where the loss diverged.
        errors5: the same of the top-5 error, of ImageNet; else empty.
    """

    epochs: int
    full: bool
    errors: dict
    errors5: dict = dataclasses.field(default_factory=dict)

    @property
    def median(self):
        return statistics.median(self.errors.values())

    @property
    def median5(self):
        return statistics.median(self.errors5.values()) if self.errors5 else None

    @property
    def mean(self):
        return statistics.mean(self.errors.values())

    @property
    def std(self):
        """Standard deviation of the sample; 0 of one run."""
        return statistics.stdev(self.errors.values()) if len(self.errors) > 1 else 0.0

    def __str__(self):
        n, shortened = len(self.errors), "" if self.full else f" in {self.epochs} epochs"
        if self.median > FAIL:
            return f"fail (n={n}){shortened}"
        spread = f"{self.mean:.2f} ± {self.std:.2f}, " if n > 1 else ""
        top5 = f" / {self.median5:.2f}" if self.errors5 else ""
        return f"{self.median:.2f}{top5} ({spread}n={n}){shortened}"


def results(experiment, output="runs/paper"):
    """Returns the `Result`s of an experiment, the full one first, then shortened ones, longest first."""
    recipe, found = recipes.find(experiment.recipe), {}
    whole = {"epochs": recipe.epochs, "warmup_of": recipe.warmup_of}
    for folder in local("output", output).glob(f"{experiment.run}*/seed*"):
        if not (folder / runs.RUN).exists():
            continue
        run = runs.read_run(folder)
        ran = recipes.Recipe(**run["recipe"])
        same = (NetworkConfig(**run["config"]), run["data"]["name"]) == (experiment.config, experiment.data)
        if not same or run.get("hold_out", 0) != experiment.hold_out or dataclasses.replace(ran, **whole) != recipe:
            continue
        errors = _errors(experiment, folder)
        if errors is not None:
            found.setdefault(ran.epochs, {})[run["seed"]] = errors
    return [_result(n, n == recipe.epochs, found[n]) for n in sorted(found, reverse=True)]


def _result(epochs, full, found):
    top1, top5 = ({seed: found[seed][i] for seed in sorted(found) if found[seed][i] is not None} for i in (0, 1))
    return Result(epochs, full, top1, top5)


def _errors(experiment, folder):
    """Returns (top-1, top-5 error or None) of a run in percent, None if it has not ended."""
    if (folder / DIVERGED).exists():
        return 100.0, 100.0 if experiment.test else None
    if not (folder / runs.FINAL).exists():
        return None
    if experiment.test:
        path = folder / _measured(experiment)
        if not path.exists():
            return None
        measured = json.loads(path.read_text(encoding="utf-8"))
        return measured["top1_error"], measured["top5_error"]
    return float(runs.read_log(folder / runs.LOG)[-1]["test_error"]), None
