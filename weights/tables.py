"""Print the tables of the documents: our results, from results.csv and upstream.csv, and published ImageNet errors.

    python weights/tables.py
"""
import csv
from pathlib import Path

from keras_preact.training import recipes
from keras_preact.zoo import index

HERE = Path(__file__).parent
DEPTHS = (18, 34, 50, 101, 152, 200)


def read(name):
    with open(HERE / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def results():
    """Returns Markdown: a line for each weight of ours; those of fewer epochs than the recipe's have a column apart."""
    return markdown(["weights", "test error", "shortened", "published", "other zoos", "runs", "trained"], [
        _result(row) for row in read("results.csv")
    ])


def _result(row):
    error, epochs = f'{float(row["error_percent"]):.2f} %', int(row["epochs"])
    whole = recipes.find(row["recipe"]).epochs
    return [
        f'`{row["architecture"]}(weights="{row["tag"]}")`', *((error, "") if epochs == whole else ("", error)),
        f'{row["published_error_percent"]} % ({row["published_in"]})' if row["published_in"] else "",
        _elsewhere(row["architecture"], row["dataset"]), row["runs"],
        f'{epochs}{"" if epochs == whole else f" of {whole}"} epochs, `{row["recipe"]}`',
    ]


def _elsewhere(architecture, dataset):
    """Returns the lowest error that another zoo publishes with weights of its own, and their tag."""
    errors = [
        (weight.measured["error"], weight.tag) for weight in index.upstream()
        if (weight.architecture, weight.dataset) == (architecture, dataset) and weight.measured["error"]
    ]
    return "{:.2f} % (`{}`)".format(*min(errors)) if errors else ""


def published():
    """Returns Markdown: a line for each source and crop, top-1 / top-5 error of each depth."""
    errors = {}
    for row in read("published.csv"):
        if row["dataset"] == "imagenet" and row["network"].startswith("PreAct"):
            of_depth = errors.setdefault((row["source"], row["crop"]), {})
            depth = int(row["network"].removeprefix("PreActResNet"))
            of_depth[depth] = f"{row['top1_error']} / {row['top5_error']}".removesuffix(" / ")
    return markdown(["weights", "crop", *map(str, DEPTHS)], [
        [*key, *(of_depth.get(depth, "") for depth in DEPTHS)] for key, of_depth in errors.items()
    ])


def markdown(header, rows):
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


if __name__ == "__main__":
    print(results(), published(), sep="\n\n")
