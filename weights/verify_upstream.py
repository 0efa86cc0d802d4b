"""Fetch the weights of other zoos, measure them, and write what was measured beside what was published.

    python weights/verify_upstream.py --data cifar10 --data svhn=svhn_cropped --data imagenet=imagenet2012

All that are published are fetched, compared with their hashes, converted and loaded; those whose data is given are
measured on its test images. The table is written after each, as CSV and as Markdown. The same command goes on where it
was stopped: what is in the table is not done again, but for weights whose data was not given then. A weight that fails
stops no other one; it is named at the end, the exit status is 1, and the next run tries it again.
"""
import argparse
import csv
import fnmatch
import sys
from pathlib import Path

import keras
from huggingface_hub.utils import tqdm
from tables import markdown

import keras_preact as kp
from keras_preact._support import atomic
from keras_preact.data import datasets
from keras_preact.zoo import index

KEY = "architecture", "tag"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="?", default="*", help="a name, or a pattern such as 'PreAct*'")
    parser.add_argument("--tags", default="*", help="a tag, or a pattern such as '*_tf2cv'")
    parser.add_argument("--data", action="append", default=[], metavar="NAME[=DATA]",
                        help="data set of the weights, and what to take for it: as of `keras-preact evaluate`")
    parser.add_argument("--output", type=Path, default=Path("upstream_measured.csv"), help="the table, FILE.csv")
    options = parser.parse_args()
    weights = [
        weight for weight in kp.list_weights(options.networks)
        if isinstance(weight, index.Upstream) and weight.is_fetched and fnmatch.fnmatch(weight.tag, options.tags)
    ]
    if not weights:
        parser.error(f"No weights of other zoos match {options.networks!r} and {options.tags!r}.")
    names = {weight.dataset for weight in index.upstream()}
    data = {name: source or name for name, _, source in (given.partition("=") for given in options.data)}
    if not names.issuperset(data):
        parser.error(f"--data must name a data set of {', '.join(sorted(names))}. Received: {', '.join(data)}")
    sys.exit(verify(weights, {name: datasets.load(source) for name, source in data.items()}, options.output))


def verify(weights, data, output):
    """Writes the table of the weights, measured on {data set: `Data` or `Stream`}; returns the exit status."""
    rows = {tuple(row[field] for field in KEY): row for row in (read(output) if output.exists() else ())}
    failed = {}
    with tqdm(weights, unit="weights") as bar:
        for weight in bar:
            key = weight.architecture, weight.tag
            if key in rows and (rows[key]["images"] or weight.dataset not in data):
                continue
            bar.set_postfix_str(" ".join(key))
            try:
                rows[key] = dict(zip(KEY, key)) | measured(weight, data.get(weight.dataset))
            except Exception as error:  # whatever it is, the others go on
                failed[key] = error
            else:
                write(output, list(rows.values()))
            keras.utils.clear_session()
    for key, error in failed.items():
        print(*key, "failed:", " ".join(f"{type(error).__name__}: {error}".split()), file=sys.stderr)
    print(f"{len(weights) - len(failed)} of {len(weights)} weights are in {output}")
    return 1 if failed else 0


def measured(weight, data):
    """Returns the row of a weight; what is measured is "" where there is no data."""
    model = getattr(kp, weight.architecture)(weights=weight.tag, input_shape=(None, None, 3))
    row = {
        "source": weight.source, "dataset": weight.dataset, "crop": weight.measured["crop"], "hash": weight.hash,
        "published_top1": percent(weight.measured["error"]), "measured_top1": "",
        "published_top5": percent(weight.measured["top5_error"]), "measured_top5": "", "wrong": "", "images": "",
    }
    if data:
        report = kp.evaluate(model, data, crop=int(weight.measured["crop"]), verbose=0)
        row |= {
            "measured_top1": percent(report.top1_error), "measured_top5": percent(report.top5_error),
            "wrong": report.wrong, "images": report.images,
        }
    return row


def percent(error):
    return "" if error is None else f"{error:.2f}"


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path, rows):
    atomic.write_csv(path, rows)
    columns = "published_top1", "measured_top1", "published_top5", "measured_top5", "crop", "images"
    header = ["weights", *(column.replace("_", " ") for column in columns)]
    atomic.write_text(path.with_suffix(".md"), markdown(header, [
        [f'`{row["architecture"]}(weights="{row["tag"]}")`', *(str(row[column]) for column in columns)] for row in rows
    ]) + "\n")


if __name__ == "__main__":
    main()
