"""Train the CIFAR weights that the zoo wants, one after the other, and print the error of each.

    python examples/train_cifar_weights.py --precision mixed_bfloat16

The same command goes on where it was stopped, and skips what is done. `weights/add.py` makes a weight of each run.
TensorFlow Datasets must have both data sets prepared, or else give the folder of cifar10.npz and cifar100.npz.
"""
import argparse
from pathlib import Path

import keras_preact as kp
from keras_preact.training import runs

# In the order in which they are wanted: network, data set, seed.
WEIGHTS = (
    ("PreActResNet164", "cifar10", 1),
    ("PreActResNet110", "cifar10", 1),
    ("PreActResNet20", "cifar100", 1),
    ("PreActResNet164", "cifar100", 1),
    ("PreActResNet56", "cifar10", 1),
    ("PreActResNet110", "cifar100", 1),
    ("PreActResNet56", "cifar100", 1),
    ("PreActResNet164", "cifar10", 2),
    ("ResNet164", "cifar10", 1),
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--npz", type=Path, metavar="FOLDER", help="of cifar10.npz and cifar100.npz")
parser.add_argument("--recipe", default="cifar_fast")
parser.add_argument("--precision", default="float32")
parser.add_argument("--output", type=Path, default=Path("runs/weights"))
parser.add_argument("--only", nargs="+", metavar="NETWORK", help="of the list")
options = parser.parse_args()

errors = {}
for network, data, seed in WEIGHTS:
    if options.only and network not in options.only:
        continue
    folder = options.output / f"{network.lower()}-{data}-{seed}"
    if not (folder / runs.FINAL).exists():
        source = options.npz / f"{data}.npz" if options.npz else data
        print(f"{network} on {data}, seed {seed}: {folder}", flush=True)
        kp.train(network, source, options.recipe, folder, seed, kp.Engine(precision=options.precision))
    errors[folder.name] = runs.read_log(folder / runs.LOG)[-1]
for name, last in errors.items():
    print(f"{last['test_error']:>6} %  {name}, after the last of {last['epoch']} epochs")
