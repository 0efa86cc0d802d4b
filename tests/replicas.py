"""Trains a tiny network on replicas, in a process of its own: they must be set up before TensorFlow starts.

    replicas.py steps               steps on two replicas against the same on one
    replicas.py mirrored FOLDER     `train` on two logical CPU devices
    replicas.py jax FOLDER          `train` by JAX, on all its devices and processes
    replicas.py worker FOLDER DIE SIGNAL
        `train` as the worker that TF_CONFIG names, which gets the signal of that number at the end of epoch DIE

The last line of output is JSON; FOLDER also gets the weights of each process, statistics included.
"""
import dataclasses
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np

from keras_preact.data import datasets
from keras_preact.networks.config import NetworkConfig
from keras_preact.training import distribution, engine as training
from keras_preact.training.distribution import STRATEGIES
from keras_preact.training.recipes import Recipe

NETWORK = NetworkConfig((1, 1), (4, 6))
RECIPE = Recipe("tiny", "a test", epochs=3, batch_size=16, schedule="cosine", padding=1)


def two_devices():
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def steps():
    two = two_devices()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 8, 8, 3)).astype("float32"), np.eye(4, dtype="float32")[rng.integers(0, 4, 8)]

    def weights_after(steps, strategy, x, y, clip=None, **engine):
        keras.utils.set_random_seed(3)
        with strategy.scope() if strategy else nullcontext():
            data = SimpleNamespace(image_shape=x.shape[1:], labels=range(4), train_images=len(x))
            network = training.compiled(
                NETWORK, data, dataclasses.replace(RECIPE, clip=clip), 0.1, training.Engine(**engine)
            )
        network.fit(x, y, batch_size=len(x), epochs=steps, shuffle=False, verbose=0)
        if strategy:
            average = distribution._AverageStatistics(strategy)
            average.set_model(network)
            average.on_test_begin()
        return network.get_weights()

    one = weights_after(3, None, x, y)
    both = weights_after(3, two, np.concatenate([x, x]), np.concatenate([y, y]))

    def difference(weights, expected=one):
        return max(float(np.abs(a - b).max()) for a, b in zip(expected, weights, strict=True))

    shared, clipped = weights_after(3, two, x, y), weights_after(3, two, x, y, clip=0.3)
    return {
        "duplicated": difference(both),
        "moved": difference(weights_after(0, None, x, y)),
        "shared": difference(shared),
        "shared, synchronized": difference(weights_after(3, two, x, y, batch_norm="synchronized")),
        "in groups": difference(weights_after(3, None, x, y, batch_norm_group=4), shared),
        "clipping": difference(clipped, shared),
        "clipped": difference(weights_after(3, None, x, y, clip=0.3, batch_norm_group=4), clipped),
    }


def images():
    """Returns data of 20 steps an epoch and, two images at a time, 20 of testing: more than Keras makes ready."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (360, 8, 8, 3)).astype("uint8"), np.arange(360) % 4
    return {"x_train": x[:320], "y_train": y[:320], "x_test": x[320:], "y_test": y[320:]}


def trained(strategy, folder, name, die=0, sent=0, **engine):
    data, engine, networks = images(), training.Engine(strategy, **engine), []
    datasets.batch_of = lambda shape: 2
    compiled, on_epoch_end = training.compiled, training._Epochs.on_epoch_end

    def end(self, epoch, logs=None):
        on_epoch_end(self, epoch, logs)
        if epoch + 1 == die:
            os.kill(os.getpid(), sent)

    training.compiled = lambda *args: networks.append(compiled(*args)) or networks[-1]
    training._Epochs.on_epoch_end = end
    refused = ""
    try:
        odd = dataclasses.replace(RECIPE, batch_size=15)
        training.train(NETWORK, data, odd, f"{folder}-odd", engine=engine)
    except ValueError as error:
        refused = str(error)
    log = training.train(NETWORK, data, RECIPE, folder, engine=engine, verbose=0)
    np.savez(Path(folder) / f"{name}.npz", *[keras.ops.convert_to_numpy(v) for v in networks[-1].weights])
    return {"epochs": len(log), "refused": refused}


def main(mode, folder=None, die="0", sent="0"):
    if mode == "steps":
        found = steps()
    elif mode == "mirrored":
        found = trained("mirrored", folder, "mirrored", replicas=2)
        data = {name: array[:-1] if "test" in name else array for name, array in images().items()}
        larger, engine = NetworkConfig((1, 1, 1), (5, 6, 8)), training.Engine("mirrored", replicas=2)
        found["larger"] = len(training.train(larger, data, RECIPE, f"{folder}-larger", engine=engine, verbose=0))
    elif mode == "jax":
        found = trained("jax", folder, f"jax{os.environ.get('KERAS_DISTRIBUTION_PROCESS_ID', '')}")
    else:
        STRATEGIES["multi-worker"]()
        index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
        found = trained("multi-worker", folder, f"worker{index}", int(die), int(sent))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
