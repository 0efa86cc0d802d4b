"""Kills training runs at random moments, lets them go on, and compares their ends with that of a run left alone.

    python tests/kill_runs.py --kills 100 --work kills

A run ends alike if all weights and all columns of the log but the speed are equal to the bit. It takes an hour, so that
it is no test.
"""
import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
from rich.progress import Progress

ROOT = Path(__file__).parent.parent
FORMS = {"plain": ["--loop", "off"], "looped": ["--loop", "on"]}
CASES = {
    **{f"{backend}-{form}": options for backend in ("tensorflow", "jax") for form, options in FORMS.items()},
    "tensorflow-mirrored": ["--strategy", "mirrored", "--replicas", "2"],
}


def data_file(path):
    """Writes noise of four classes, 20 steps an epoch."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (360, 8, 8, 3), dtype="uint8"), np.arange(360) % 4
    np.savez(path, x_train=x[:320], y_train=y[:320], x_test=x[320:], y_test=y[320:])
    return path


def started(case, data, output):
    backend, _ = case.split("-")
    arguments = [
        "train", "PreActResNet20", "--data", str(data), "--recipe", "cifar_short", "--output", str(output),
        "--epochs", "30", "--batch-size", "16", "--set", "warmup_steps=40", *CASES[case],
    ]
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    code = "import sys; from keras_preact.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )


def end_of(output):
    """Returns {name: bytes} of the final weights, and the rows of the log without the speed."""
    found = {}
    with h5py.File(output / "final.weights.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()].tobytes()} if hasattr(item, "dtype") else {}))
    with open(output / "log.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["images_per_second"]
    return found, rows


def finished(process, output):
    """Waits for `process` and returns how its run ended."""
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"A run that went on in {output} failed:\n{errors}")
    return end_of(output)


def killed(process, seconds):
    """Kills `process` after so many seconds, and returns whether it was still at work."""
    try:
        process.communicate(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="over all cases (default: 100)")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), metavar="CASE",
                        help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--work", type=Path, required=True, help="a new folder for the runs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    options.work.mkdir(parents=True)
    data, moments, unequal = data_file(options.work / "data.npz"), random.Random(options.seed), 0
    with Progress() as progress:
        bar = progress.add_task("Kills", total=options.kills)
        for i, case in enumerate(options.cases):
            before = time.monotonic()
            whole = finished(started(case, data, options.work / case), options.work / case)
            took = time.monotonic() - before
            share, rest = divmod(options.kills, len(options.cases))
            left, runs, equal = share + (i < rest), 0, 0
            while left:
                output = options.work / f"{case}-{runs}"
                for _ in range(min(left, moments.randint(1, 5))):
                    if not killed(started(case, data, output), moments.uniform(0, took)):
                        break  # it had ended
                    left -= 1
                    progress.advance(bar)
                equal += finished(started(case, data, output), output) == whole
                runs += 1
            unequal += runs - equal
            progress.console.print(f"{case}: {equal} of {runs} runs ended as the one that was left alone")
    sys.exit(1 if unequal else 0)


if __name__ == "__main__":
    main()
