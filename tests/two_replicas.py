"""Run by test_training in a process of its own: two logical CPU devices must be set up before TensorFlow starts.

Prints, as JSON, how far a step on two replicas of duplicated data is from a step on one, and what `train` does there.
"""
import dataclasses
import json
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf

from keras_preact import training
from keras_preact.networks import NetworkConfig
from keras_preact.recipes import Recipe

NETWORK = NetworkConfig((1, 1), (4, 6))
RECIPE = Recipe("tiny", "a test", epochs=3, batch_size=16, schedule="cosine", padding=1)


def weights_after(strategy, x, y, steps):
    keras.utils.set_random_seed(3)
    with strategy.scope() if strategy else nullcontext():
        data = SimpleNamespace(x_train=x, labels=range(4))
        network = training._compiled(NETWORK, data, RECIPE, 0.1, training.Engine())
    if steps:
        network.fit(x, y, batch_size=len(x), epochs=steps, shuffle=False, verbose=0)
    return network.get_weights()


def distance(a, b):
    return max(float(np.abs(u - v).max()) for u, v in zip(a, b))


def main(folder):
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    training.STRATEGIES["mirrored"] = lambda: two

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 8, 8, 3)).astype("float32"), np.eye(4, dtype="float32")[rng.integers(0, 4, 8)]
    start, one = weights_after(None, x, y, 0), weights_after(None, x, y, 3)
    both = weights_after(two, np.concatenate([x, x]), np.concatenate([y, y]), 3)
    found = {"difference": distance(one, both), "moved": distance(start, one)}

    images, labels = rng.integers(0, 256, (40, 8, 8, 3)).astype("uint8"), np.arange(40) % 4
    data = {"x_train": images[:32], "y_train": labels[:32], "x_test": images[32:], "y_test": labels[32:]}
    engine = training.Engine("mirrored")
    found["epochs"] = len(training.train(NETWORK, data, RECIPE, folder, engine=engine, verbose=0))
    try:
        training.train(NETWORK, data, dataclasses.replace(RECIPE, batch_size=15), f"{folder}15", engine=engine)
    except ValueError as error:
        found["error"] = str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
