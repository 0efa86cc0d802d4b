"""How close training comes to the speed of its bare step, and what a second replica costs or brings.

    python examples/benchmark_training.py cifar10 --model PreActResNet20

All contestants train the same network in turn, in one process; printed are the ratios of their speeds to that of `fit`
on augmented data, median and range over the rounds. Without two GPUs the two replicas share the CPU.
"""
import argparse
import dataclasses
import statistics
import time

import keras
import numpy as np

from keras_preact.data import datasets
from keras_preact.networks.architectures import CONFIGS
from keras_preact.training import recipes
from keras_preact.training.engine import Engine, compiled

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data")
parser.add_argument("--model", default="PreActResNet20")
parser.add_argument("--steps", type=int, default=20, help="in one measurement (default: 20)")
parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default: 5)")
options = parser.parse_args()


class OneBatch(keras.utils.PyDataset):
    def __len__(self):
        return options.steps

    def __getitem__(self, i):
        return batch


def two_replicas():
    """Returns a MirroredStrategy on two GPUs or, where there are fewer, on two logical CPU devices."""
    import tensorflow as tf

    if len(tf.config.list_physical_devices("GPU")) < 2:
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    return tf.distribute.MirroredStrategy(["GPU:0", "GPU:1"])


def network():
    return compiled(config, data, recipe, recipe.learning_rates(options.steps), Engine())


def fit(model, batches):
    model.fit(batches, shuffle=False, verbose=0)


def bare(model):
    for _ in range(options.steps):
        model.train_on_batch(*batch)


on_tensorflow = keras.backend.backend() == "tensorflow"
strategy = two_replicas() if on_tensorflow else None  # before anything else starts TensorFlow
recipe, config = recipes.find("cifar_paper"), CONFIGS[options.model]
data = datasets.load(options.data, config.input_size)
images = options.steps * recipe.batch_size
data = dataclasses.replace(data, x_train=data.x_train[:images], y_train=data.y_train[:images])
batches = data.training(recipe, seed=0)["x"]
batch = batches[0]

one = network()
contestants = {
    "fit, augmented data": lambda: fit(one, batches),
    "fit, one batch in memory": lambda: fit(one, OneBatch(workers=2)),
    "train_on_batch, one batch": lambda: bare(one),
}
if on_tensorflow:
    with strategy.scope():
        two = network()
    contestants["fit, augmented data, two replicas"] = lambda: fit(two, batches)

seconds = {name: [] for name in contestants}
for run in range(options.rounds + 1):
    for name, contestant in contestants.items():
        start = time.perf_counter()
        contestant()
        if run:  # the first round compiles
            seconds[name].append(time.perf_counter() - start)
first, *others = seconds
print(f"{options.model}, {first}: {images / statistics.median(seconds[first]):.0f} images/s")
for name in others:
    ratios = np.array(seconds[first]) / np.array(seconds[name])
    print(f"{name}: {np.median(ratios):.2f} of that speed ({ratios.min():.2f} to {ratios.max():.2f})")
