"""Compare variants of a recipe on held-out training images, never on the test images.

    python examples/choose_recipe.py cifar10 --model PreActResNet20 --epochs 15

Trains each variant and seed on all but 5,000 training images and prints the error on those after the last epoch. The
same command goes on where it was stopped, and skips what is done.
"""
import argparse
import dataclasses
import statistics
from pathlib import Path

import keras_preact as kp
from keras_preact.training import recipes

VARIANTS = {
    "as it is": {},
    "label_smoothing=0.1": {"label_smoothing": 0.1},
    "cutout=8": {"cutout": 8},
    "mixup=0.2": {"mixup": 0.2},
    "muon": {"optimizer": "muon", "learning_rate": 0.02, "weight_decay": 0.1},
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data")
parser.add_argument("--model", default="PreActResNet20")
parser.add_argument("--recipe", default="cifar_short", help="which the variants change (default: %(default)s)")
parser.add_argument("--epochs", type=int, help="instead of the recipe's")
parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT")
parser.add_argument("--precision", default="float32")
parser.add_argument("--seeds", type=int, nargs="+", default=[1])
parser.add_argument("--output", type=Path, default=Path("runs/choose"))
options = parser.parse_args()

recipe = recipes.find(options.recipe)
recipe = dataclasses.replace(recipe, epochs=options.epochs or recipe.epochs)
errors = {}
for seed in options.seeds:
    for name in options.only:
        log = kp.train(
            options.model, options.data, dataclasses.replace(recipe, **VARIANTS[name]),
            options.output / f"{name.replace(' ', '_')}-{seed}", seed, kp.Engine(precision=options.precision),
            hold_out=5000,
        )
        errors.setdefault(name, []).append(float(log[-1]["test_error"]))

print(f"{options.model}, {recipe.name}, {recipe.epochs} epochs: held-out error (%), mean of {len(options.seeds)} seeds")
for name, found in sorted(errors.items(), key=lambda item: statistics.mean(item[1])):
    print(f"{statistics.mean(found):6.2f}  {name:22} {' '.join(f'{error:.2f}' for error in found)}")
