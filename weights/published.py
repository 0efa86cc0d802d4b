"""Print the README's table of published ImageNet errors from published.csv.

    python weights/published.py
"""
import csv
from pathlib import Path

HERE = Path(__file__).parent
DEPTHS = (18, 34, 50, 101, 152, 200)


def read():
    with open(HERE / "published.csv", newline="") as file:
        return list(csv.DictReader(file))


def table():
    """Returns Markdown: a line for each source and crop, top-1 / top-5 error of each depth."""
    lines, results = {}, {}
    for row in (row for row in read() if row["dataset"] == "imagenet" and row["network"].startswith("PreAct")):
        errors = f"{row['top1_error']} / {row['top5_error']}".removesuffix(" / ")
        key = row["source"], row["crop"]
        results[key, row["network"].removeprefix("PreActResNet")] = errors
        lines[key] = None
    rows = [
        [*key, *(results.get((key, str(depth)), "") for depth in DEPTHS)] for key in lines
    ]
    header = ["weights", "crop", *map(str, DEPTHS)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


if __name__ == "__main__":
    print(table())
