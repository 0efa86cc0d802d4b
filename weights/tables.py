"""Print the tables of the documents, and draw docs/figures/error_over_time.png.

    python weights/tables.py

The tables are our results, from results.csv and upstream.csv, and published ImageNet errors.
"""
import csv
from pathlib import Path

from keras_preact._support.drawing import drawing
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


def curves(dataset):
    """Returns {weight: (hours, test errors)}, a value for each epoch, of our weights that were trained on a data set.

    An epoch takes what the fastest of its run took, since other programs ran beside most runs.
    """
    found = {}
    for row in read("results.csv"):
        log = read(f'records/{row["architecture"].lower()}-{row["tag"]}/log.csv')
        fastest = min(_seconds(epoch) for epoch in log)
        if row["dataset"] == dataset:
            name = f'{row["architecture"]}, {row["recipe"]}'
            hours = [(i + 1) * fastest / 3600 for i in range(len(log))]
            found[name] = hours, [float(epoch["test_error"]) for epoch in log]
    return found


def _seconds(epoch):
    return 50_000 / float(epoch["images_per_second"]) if "images_per_second" in epoch else float(epoch["seconds"])


def plot(path):
    """Draws the test error of our weights on CIFAR-10 over the time that their training takes on two cores."""
    with drawing(path, figsize=(7, 4.5)) as axes:
        for name, (hours, errors) in curves("cifar10").items():
            axes.loglog(hours, errors, label=f"{name}: {errors[-1]:.2f} %")
        axes.set(xlabel="hours on two cores of an AMD EPYC", ylabel="test error (%)")
        axes.set_yticks([5, 10, 20, 50], ["5", "10", "20", "50"])
        axes.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
        axes.minorticks_off()
        axes.legend()


if __name__ == "__main__":
    print(results(), published(), sep="\n\n")
    plot(HERE.parent / "docs" / "figures" / "error_over_time.png")
