"""How signals and gradients pass through the units of a network: the paper's argument, Eqns. 4 to 8, made visible."""
from typing import NamedTuple

import keras
import numpy as np

from keras_preact._support.drawing import drawing
from keras_preact._support.settings import random_seed
from keras_preact.data import datasets
from keras_preact.data.batches import TrainingBatches
from keras_preact.networks.config import ORDERS, NetworkConfig, plan
from keras_preact.networks.graph import deep_enough
from keras_preact.training import recipes
from keras_preact.training.engine import Engine, compiled

BATCH = 16
# What the figure compares, each with the unit's other part as in the paper's experiments on it.
SHORTCUTS = {
    "identity": {"order": "original"},
    "scaled by 0.5": {"order": "original", "join": ("scaled", 0.5, 0.5)},
    "exclusive gate, bias -6": {"order": "original", "join": ("exclusive_gate", -6)},
    "shortcut gate, bias 0": {"order": "original", "join": ("shortcut_gate", 0)},
    "1x1 conv": {"order": "original", "shortcut": "project_always"},
    "dropout 0.5": {"order": "original", "join": ("dropout", 0.5)},
}
PANELS = {"shortcuts": SHORTCUTS, "orders": {order.replace("_", " "): {"order": order} for order in ORDERS}}


class Signals(NamedTuple):
    """Of each residual unit: the root mean square of its output, and that of the loss's gradient with respect to it."""

    forward: np.ndarray
    gradient: np.ndarray


def measure(config, data=None, steps=0, seed=1):
    """Returns the `Signals` of a network at its initial weights, or after some training; it needs TensorFlow.

    Args:
        config: a `NetworkConfig`.
        data: what `datasets.load` takes, of the network's own image size; default noise.
        steps: of `cifar_paper`'s warm-up, at a learning rate of 0.01, before the measurement; they need `data`.
        seed: of the weights and the order of the data.

    Raises:
        ValueError: another backend than TensorFlow, or steps without data.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(f"Gradients of units are taken with TensorFlow. Received: {keras.backend.backend()!r}")
    if steps and data is None:
        raise ValueError(f"`steps` of training need `data`. Received: steps={steps}")
    recipe = recipes.find("cifar_paper")
    data = _noise(config) if data is None else datasets.load(data, config.input_size)
    with random_seed(seed), deep_enough(config):
        network = compiled(config, data, recipe, recipe.warmup_rate, Engine(loop=False))
        batches = TrainingBatches(data, recipe, seed)
        for step in range(steps):
            network.train_on_batch(*batches[step % len(batches)])
        images, targets = batches[0]
        return _signals(network, config, images[:BATCH], targets[:BATCH])


def _noise(config):
    shape = (*config.input_size, 3)
    images = np.random.default_rng(0).integers(0, 256, (128, *shape), dtype="uint8")
    labels = np.arange(128) % config.default_classes
    return datasets.load({"x_train": images, "y_train": labels, "x_test": images[:1], "y_test": labels[:1]})


def _signals(network, config, images, targets):
    import tensorflow as tf

    ends = {}
    for layer in network.layers:
        ends["_".join(layer.name.split("_")[:2])] = layer
    outputs = [ends[unit.name].output for stage in plan(config) for unit in stage]
    with tf.GradientTape() as tape:
        *units, logits = keras.Model(network.input, [*outputs, network.output])(images, training=True)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)(targets, logits)
    gradients = tape.gradient(loss, units)
    return Signals(*(
        np.array([np.sqrt(np.mean(np.square(t, dtype="float64"))) for t in part]) for part in (units, gradients)
    ))


def plot(path, depth=110, data=None, steps=0, seed=1):
    """Draws the `Signals` of every shortcut of Fig. 2 and every order of Fig. 4, and writes the figure as a PNG.

    Args:
        path: of the PNG.
        depth: of the networks, as of `NetworkConfig.cifar`; bottleneck units where it is 9n+2 and not 6n+2.
        data, steps, seed: as of `measure`.

    Returns:
        {(panel, label): `Signals`}
    """
    from rich.console import Console
    from rich.progress import track

    unit = "basic" if (depth - 2) % 6 == 0 else "bottleneck"
    cases = [(panel, label, changes) for panel, labels in PANELS.items() for label, changes in labels.items()]
    found = {}
    for panel, label, changes in track(cases, "Measuring", console=Console(stderr=True), transient=True):
        found[panel, label] = measure(NetworkConfig.cifar(depth, unit, **changes), data, steps, seed)
    when = f"after {steps} steps" if steps else "at initialization"
    with drawing(path, 2, len(PANELS), figsize=(6 * len(PANELS), 7), sharex=True) as axes:
        for column, panel in zip(axes.T, PANELS):
            for label in PANELS[panel]:
                for axis, values in zip(column, found[panel, label]):
                    axis.semilogy(range(1, len(values) + 1), values, label=label)
            column[0].set(title=f"{panel}, {depth} layers, {when}", ylabel="output of the unit (RMS)")
            column[1].set(xlabel="residual unit", ylabel="gradient of the loss (RMS)")
            column[1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, frameon=False)
    return found
