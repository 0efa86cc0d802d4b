"""The training engine: `model.fit` by a recipe, with a log line an epoch and a checkpoint that survives a kill."""
import csv
import dataclasses
import json
import os
import time
from pathlib import Path

import keras

from keras_preact.datasets import Batches


class SGD(keras.optimizers.SGD):
    """Keras's SGD with the L2 gradient of the paper: Keras's own `weight_decay` is decoupled from the momentum."""

    def __init__(self, *args, l2=0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.l2 = l2

    def build(self, variables):
        # TensorFlow hands its own variables to update_step, whose names are not Keras's.
        self._decayed = {i for i, variable in enumerate(variables) if variable.name == "kernel"}
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        if self.l2 and self._get_variable_index(variable) in self._decayed:
            gradient = keras.ops.add(gradient, keras.ops.multiply(variable, self.l2))
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return super().get_config() | {"l2": self.l2}


class _Epochs(keras.callbacks.Callback):
    """At the end of an epoch: one line of the log, then the checkpoint, each whole or not at all."""

    def __init__(self, folder, schedule):
        super().__init__()
        self.folder, self.schedule = folder, schedule

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        row = {
            "epoch": epoch + 1,
            "loss": f"{logs['loss']:.5f}",
            "error": f"{100 * (1 - logs['accuracy']):.3f}",
            "test_loss": f"{logs['val_loss']:.5f}",
            "test_error": f"{100 * (1 - logs['val_accuracy']):.2f}",
            "learning_rate": f"{float(self.schedule(self.model.optimizer.iterations)):.6f}",
            "seconds": f"{time.monotonic() - self.start:.1f}",
        }
        log, checkpoint = self.folder / "log.csv", self.folder / "checkpoint.weights.h5"
        rows = [r for r in read_log(log) if int(r["epoch"]) <= epoch] + [row]
        with open(self.folder / "log.csv.new", "w", newline="") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(file.name, log)
        self.model.save_weights(self.folder / "new.weights.h5", overwrite=True)
        os.replace(self.folder / "new.weights.h5", checkpoint)


def read_log(path):
    """Returns the lines of a training log as dicts of text, none if there is no log."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def train(model, data, normalize, recipe, output, seed=1):
    """Trains `model` by `recipe`, or goes on where an earlier call with the same arguments was stopped.

    Args:
        model: a network whose outputs are logits.
        data: dict of x_train, y_train, x_test and y_test; uint8 images (n, height, width, 3), integer labels (n,).
        normalize: function from uint8 images to the network's input.
        recipe: a `Recipe`.
        output: folder for log.csv (errors in percent), recipe.json, checkpoint.weights.h5 and final.weights.h5.
        seed: of the data order and augmentation; seed the initial weights with `keras.utils.set_random_seed`.

    Returns:
        The lines of the log.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe) | {"seed": seed}, indent=2) + "\n")
    steps = len(data["x_train"]) // recipe.batch_size
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, (recipe.epochs - recipe.warmup_epochs) * steps,
        warmup_target=recipe.learning_rate, warmup_steps=recipe.warmup_epochs * steps,
    )
    model.compile(
        SGD(schedule, recipe.momentum, recipe.nesterov, l2=recipe.weight_decay),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile="auto" if keras.backend.backend() == "jax" else False,
    )
    model.optimizer.build(model.trainable_variables)
    checkpoint = folder / "checkpoint.weights.h5"
    if checkpoint.exists():
        model.load_weights(checkpoint)
    epoch = int(model.optimizer.iterations) // steps
    batches = Batches(
        normalize(data["x_train"]), data["y_train"], recipe.batch_size, recipe.padding, seed, epoch,
    )
    model.fit(
        batches, epochs=recipe.epochs, initial_epoch=epoch, shuffle=False, verbose=2,
        validation_data=(normalize(data["x_test"]), data["y_test"]), validation_batch_size=500,
        callbacks=[_Epochs(folder, schedule)],
    )
    model.save_weights(folder / "final.weights.h5", overwrite=True)
    return read_log(folder / "log.csv")
