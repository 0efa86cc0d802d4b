"""How close training comes to the speed of its bare step, as ratios measured in turn in one process.

    python examples/benchmark_training.py cifar10 --model PreActResNet20

Prints, with the median and the range over the rounds: `fit` on augmented data against `fit` on one batch held in memory
(is the pipeline a bottleneck?), and `fit` on augmented data against a bare loop of `train_on_batch` on one batch.
"""
import argparse
import dataclasses
import statistics
import time

import keras
import numpy as np

from keras_preact import datasets, models, recipes, training

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data")
parser.add_argument("--model", default="PreActResNet20")
parser.add_argument("--steps", type=int, default=20, help="in one measurement (default: 20)")
parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default: 5)")
options = parser.parse_args()

recipe, config = recipes.find("cifar_paper"), models.CONFIGS[options.model]
data = datasets.load(options.data, config.input_size)
images = options.steps * recipe.batch_size
data = dataclasses.replace(data, x_train=data.x_train[:images], y_train=data.y_train[:images])
network = training.compiled(config, data, recipe, recipe.learning_rates(options.steps), training.Engine())
batches = datasets.TrainingBatches(data, recipe, seed=0)
batch = batches[0]


class OneBatch(keras.utils.PyDataset):
    def __len__(self):
        return options.steps

    def __getitem__(self, i):
        return batch


def bare():
    for _ in range(options.steps):
        network.train_on_batch(*batch)


contestants = {
    "augmented data": lambda: network.fit(batches, shuffle=False, verbose=0),
    "one batch in memory": lambda: network.fit(OneBatch(), shuffle=False, verbose=0),
    "bare train_on_batch": bare,
}
seconds = {name: [] for name in contestants}
for run in range(options.rounds + 1):
    for name, contestant in contestants.items():
        start = time.perf_counter()
        contestant()
        if run:  # the first round compiles
            seconds[name].append(time.perf_counter() - start)
print(f"{options.model}, {images / statistics.median(seconds['augmented data']):.0f} images/s on augmented data")
for name in list(contestants)[1:]:
    ratios = np.array(seconds[name]) / np.array(seconds["augmented data"])
    print(f"speed against {name}: {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})")
