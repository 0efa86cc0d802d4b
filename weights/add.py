"""Turn a finished training run into a weight that ships with the package.

    python weights/add.py RUN --data cifar10 --tag cifar10 --commit HASH --hardware "2 cores of an AMD EPYC"

Writes the weights, the index entry, the row of results.csv and the record of the run (run.json, log.csv, curve.png, the
model card and golden.npz, pixel values and their outputs), with the error of the very file on all test images. An
earlier weight of the same name is replaced. With --repository the file is the one that was published there, and the
entry is pinned to it; a large one then does not ship.
"""
import argparse
import csv
import datetime
import json
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np

from keras_preact._support import atomic
from keras_preact.networks import files
from keras_preact.networks.architectures import CONFIGS
from keras_preact.networks.config import NetworkConfig
from keras_preact.paper import experiments
from keras_preact.training import evaluation, runs
from keras_preact.zoo import hub, index
from keras_preact.zoo.publishing import CARD, GOLDEN, SELECTION, push_to_hub

HERE = Path(__file__).parent
# Test errors in percent of ResNets on CIFAR-10 by layers, Table 6 of [1], for depths that the paper has no row of.
ORIGINAL = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97}
SHIPPED = 8_000_000  # bytes of the largest file that ships with the package


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    for option in ("data", "tag", "commit", "hardware"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--repository", help="owner/name[@revision] on the Hugging Face Hub")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=HERE) as scratch:
        add(options, Path(scratch), parser.error)


def add(options, scratch, refuse):
    """Adds the weight; what is there already stays until all is checked in the folder `scratch`."""
    model, run = runs.load_run(options.run)
    recipe, log = run["recipe"], runs.read_log(options.run / runs.LOG)
    architecture, dataset = run["model"], run["data"]["name"]
    if architecture not in CONFIGS:
        refuse(f"No builder builds the network of {options.run}.")
    name = f"{architecture.lower()}-{options.tag}"

    file = scratch / f"{name}.weights.h5"
    repository = revision = None
    if options.repository:
        published = hub.snapshot(options.repository)
        repository, revision = published.repository, published.commit
        shutil.copyfile(published.file(hub.WEIGHTS), file)
        if not same(files.read(file), files.read(options.run / runs.FINAL)):
            refuse(f"{options.repository} holds other weights than {options.run}; push the run there first.")
    else:
        model.save_weights(scratch / f"unpacked-{file.name}")
        pack(scratch / f"unpacked-{file.name}", file)
    files.assign(model, files.read(file), file)
    report = evaluation.evaluate(model, options.data)
    error = round(report.top1_error, 2)
    print(f"{report.wrong} of {report.images} test images wrong: {error} %; the log says {log[-1]['test_error']} %")

    size, sha256 = file.stat().st_size, hub.digest(file)
    if size > SHIPPED and not repository:
        refuse(f"{size} bytes are too many to ship: push the run to the Hub and give --repository.")
    date = datetime.datetime.fromtimestamp((options.run / runs.FINAL).stat().st_mtime, datetime.UTC).date()
    entry = index.Weight(
        architecture, options.tag, dataset, file.name, size, sha256, repository, revision,
        preprocessing=run["data"]["preprocessing"], labels=dataset, licence="Apache-2.0",
        made={
            "recipe": recipe["name"], "epochs": recipe["epochs"], "seed": run["seed"], "commit": options.commit,
            "hardware": options.hardware, "date": str(date), "record": f"records/{name}",
        },
        measured={
            "error": error, "wrong": report.wrong, "images": report.images, "split": f"{dataset} test",
            "crop": "x".join(map(str, report.crop)), "selection": SELECTION,
        },
    )
    if size <= SHIPPED:
        file.rename(HERE / file.name)
    else:
        (HERE / file.name).unlink(missing_ok=True)
    entries = HERE / "index.json"
    rows = [old for old in json.loads(entries.read_text("utf-8")) if key(old) != (architecture, options.tag)]
    atomic.write_text(entries, json.dumps([*rows, vars(entry)], indent=2) + "\n")

    record = HERE / "records" / name
    record.mkdir(parents=True, exist_ok=True)
    for part in (runs.RUN, runs.LOG):
        shutil.copyfile(options.run / part, record / part)
    runs.plot({"": log}, record / runs.CURVE, f"{architecture} on {dataset}: {error} % test error")
    folder = scratch / name
    push_to_hub(options.run, repository or f"owner/{name}", dry_run=True, folder=folder)
    for part in (CARD, GOLDEN):
        shutil.copyfile(folder / part, record / part)

    published, source = published_error(NetworkConfig(**run["config"]), dataset)
    row = {
        "architecture": architecture, "tag": options.tag, "dataset": dataset, "error_percent": error,
        "published_error_percent": published, "published_in": source, "runs": 1, "selection": SELECTION,
    } | {field: entry.made[field] for field in ("epochs", "recipe", "seed", "commit", "hardware", "date")}
    results = HERE / "results.csv"
    with open(results, newline="", encoding="utf-8") as lines:
        rows = [old for old in csv.DictReader(lines) if key(old) != (architecture, options.tag)]
    atomic.write_csv(results, [*rows, row])


def pack(source, target):
    """Copies an HDF5 file, losslessly compressed: of a deep network its structure alone may take a fifth of it."""
    with h5py.File(source) as old, h5py.File(target, "w", libver="latest") as new:
        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                small = item.size < 1000
                made = new.create_dataset(name, data=item[()], **{} if small else {"compression": 9, "shuffle": True})
            else:
                made = new.require_group(name)
            made.attrs.update(item.attrs)

        new.attrs.update(old.attrs)
        old.visititems(copy)


def published_error(config, dataset):
    """Returns what an error is held against, of the same network and data set, and where it stands; "" if nowhere."""
    for row in experiments.EXPERIMENTS:
        if (row.config, row.data) == (config, dataset):
            return row.error, row.table.replace("table", "Table ")
    if dataset == "cifar10" and config.unit == "basic" and config.depth in ORIGINAL:
        return ORIGINAL[config.depth], "Table 6 of [1], original unit"
    return "", ""


def same(layers, others):
    return layers.keys() == others.keys() and all(
        np.array_equal(a, b) for name in layers for a, b in zip(layers[name], others[name], strict=True)
    )


def key(entry):
    return entry["architecture"], entry["tag"]


if __name__ == "__main__":
    main()
