"""Turn a finished training run into a weight that ships with the package.

    python weights/add.py RUN DATA.npz --architecture PreActResNet20 --tag cifar10 \\
        --commit HASH --hardware "2 cores of an AMD EPYC"

Writes the weights without the optimizer, the index entry, the row of results.csv and the record of the run (recipe and
log), measuring the error of the written file on all test images. Figures of an earlier weight of the same name are
replaced.
"""
import argparse
import csv
import datetime
import hashlib
import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np

from keras_preact import models, pretrained
from keras_preact.datasets import load_npz
from keras_preact.preprocessing import LABELS, Preprocessing, normalize
from keras_preact.training import read_log

HERE = Path(__file__).parent
PREPROCESSING = {
    "cifar10": Preprocessing((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), (32, 32)),
}
PAPER = {("PreActResNet20", "cifar10"): (8.75, "Table 6 of [1], the original unit")}
RESULTS = (
    "architecture", "tag", "dataset", "error_percent", "paper_error_percent", "paper_source", "runs", "epochs",
    "recipe", "seed", "selection", "commit", "hardware", "date",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    for option in ("architecture", "tag", "commit", "hardware"):
        parser.add_argument(f"--{option}", required=True)
    options = parser.parse_args()
    dataset = options.tag.split("-")[0]
    preprocessing, labels = PREPROCESSING[dataset], LABELS[dataset]
    recipe, log = json.loads((options.run / "recipe.json").read_text()), read_log(options.run / "log.csv")
    if int(log[-1]["epoch"]) != recipe["epochs"]:
        raise SystemExit(f"{options.run} has run {log[-1]['epoch']} of {recipe['epochs']} epochs: finish it first.")

    name = f"{options.architecture.lower()}-{options.tag}"
    path = HERE / f"{name}.weights.h5"
    model = getattr(models, options.architecture)(classes=len(labels))
    pretrained.assign(model, pretrained.read(options.run / "final.weights.h5"), str(options.run))
    new = HERE / "new.weights.h5"
    model.save_weights(new)
    os.replace(new, path)
    data = load_npz(options.data)
    predicted = model.predict(normalize(data["x_test"], preprocessing), batch_size=500).argmax(1)
    wrong = int((predicted != data["y_test"]).sum())
    error = round(100 * wrong / len(predicted), 2)
    print(f"{wrong} of {len(predicted)} test images wrong: {error} %; the log says {log[-1]['test_error']} %")

    content = path.read_bytes()
    date = datetime.datetime.fromtimestamp((options.run / "final.weights.h5").stat().st_mtime, datetime.UTC).date()
    made = {"recipe": recipe["name"], "epochs": recipe["epochs"], "seed": recipe["seed"], "commit": options.commit}
    made |= {"hardware": options.hardware, "date": str(date), "record": f"records/{name}"}
    selection = "last epoch"
    measured = {"error": error, "wrong": wrong, "images": len(predicted), "split": f"{dataset} test", "crop": "32x32"}
    entry = {
        "architecture": options.architecture, "tag": options.tag, "dataset": dataset, "file": path.name,
        "size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "repository": None, "revision": None,
        "preprocessing": {k: v for k, v in vars(preprocessing).items()}, "labels": dataset, "licence": "Apache-2.0",
        "made": made, "measured": measured | {"selection": selection},
    }
    index = json.loads((HERE / "index.json").read_text())
    index = [e for e in index if (e["architecture"], e["tag"]) != (options.architecture, options.tag)] + [entry]
    write(HERE / "index.json", json.dumps(index, indent=2) + "\n")

    record = HERE / "records" / name
    record.mkdir(parents=True, exist_ok=True)
    for file in ("recipe.json", "log.csv"):
        shutil.copyfile(options.run / file, record / file)
    plot(log, record / "curve.png", f"{options.architecture} on {dataset}: {error} % test error")

    paper, source = PAPER.get((options.architecture, options.tag), ("", ""))
    row = dict(zip(RESULTS, (
        options.architecture, options.tag, dataset, error, paper, source, 1, recipe["epochs"], recipe["name"],
        recipe["seed"], selection, options.commit, options.hardware, date,
    )))
    results = HERE / "results.csv"
    with open(results, newline="") as file:
        rows = [r for r in csv.DictReader(file) if (r["architecture"], r["tag"]) != (options.architecture, options.tag)]
    with open(results.with_suffix(".new"), "w", newline="") as file:
        writer = csv.DictWriter(file, RESULTS)
        writer.writeheader()
        writer.writerows([*rows, row])
    os.replace(results.with_suffix(".new"), results)


def write(path, text):
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def plot(log, path, title):
    """The curves in the style of the paper's Fig. 1: test error solid, training loss dashed on a log scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    epochs = np.array([int(row["epoch"]) for row in log])
    figure, left = plt.subplots(figsize=(6, 4))
    left.semilogy(epochs, [float(row["loss"]) for row in log], "C0--", label="training loss")
    left.set(xlabel="epoch", ylabel="training loss", title=title)
    right = left.twinx()
    right.plot(epochs, [float(row["test_error"]) for row in log], "C3-", label="test error")
    right.set(ylabel="test error (%)", ylim=(0, 30))
    figure.legend(loc="upper right", bbox_to_anchor=(0.88, 0.88))
    figure.tight_layout()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main()
