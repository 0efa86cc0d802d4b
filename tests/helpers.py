"""What several tests share: tiny networks with random weights, and their distance from the reference."""
import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import reference

import keras_preact
from keras_preact.networks.building import ResNet
from keras_preact.networks.config import NetworkConfig
from keras_preact.training import engine
from keras_preact.training.runs import read_log

HALF = keras_preact.Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (16, 16))
LABELS = ("a", "b", "c", "d", "e")
PACKAGE_PARENT = Path(keras_preact.__file__).parent.parent


EXAMPLES = sorted((Path(__file__).parent.parent / "examples" / "images").glob("*.png"))


def example_images(model):
    """The images of examples/images as `model` takes them, uint8."""
    return np.stack([keras_preact.load_image(file, model.preprocessing) for file in EXAMPLES])


def slow(*case, id=None):
    """A case of a parametrized test that is run with the slow tests; quicker ones cover its room."""
    return pytest.param(*case, marks=pytest.mark.slow, id=id)


def tiny(config=None, **changes):
    """A config of four narrow units in three stages, or `config` cut down to about that."""
    if config is None:
        return NetworkConfig(**{"units": (1, 2, 1), "widths": (4, 6, 8)} | changes)
    n = len(config.units)
    return replace(config, **{"units": (2, 2, 1, 1)[:n], "widths": (4, 6, 8, 10)[:n]} | changes)


def build(config, shape=(9, 11, 3), classes=5, seed=0, **kwargs):
    """The network of `config` with random weights; its outputs are logits."""
    model = ResNet(config, input_shape=shape, classes=classes, classifier_activation=None)
    randomize(model, seed, **kwargs)
    return model


def randomize(model, seed, gamma_signs=(-1, 1)):
    """Draws every weight of a Keras model at random such that signals stay of order 1."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(draw(variable.name, variable.shape, rng, gamma_signs))


def draw(name, shape, rng, gamma_signs=(-1, 1)):
    """A random value for a variable, which Keras 3 calls "kernel" and Keras 2 "layer/kernel:0"."""
    return {
        "kernel": lambda: rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape),
        "bias": lambda: rng.normal(0, 0.5, shape),
        "gamma": lambda: rng.uniform(0.5, 1.5, shape) * rng.choice(gamma_signs, shape),
        "beta": lambda: rng.normal(0, 0.5, shape),
        "moving_mean": lambda: rng.normal(0, 0.5, shape),
        "moving_variance": lambda: rng.uniform(0.5, 2, shape),
    }[name.split("/")[-1].split(":")[0]]()


def weights_of(model):
    return {
        f"{layer.name}/{variable.name}": value
        for layer in model.layers for variable, value in zip(layer.weights, layer.get_weights())
    }


def config_kwargs(config):
    """The keyword arguments of `reference.forward` for `config`."""
    names = ("units", "unit", "order", "shortcut", "join", "stem", "first_activation", "stride_on", "epsilon",
             "pool_padding", "normalize_input")
    return {name: getattr(config, name) for name in names}


def images_like(shape, count=2, seed=1):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype("float32")


class Killed(BaseException):
    pass


@contextlib.contextmanager
def killed(epoch, before_checkpoint=False, look=lambda network: None):
    """Has the run in it die at the end of an epoch: after the line of its log, and after the checkpoint or before it.

    `look` is called with the network at that moment.
    """
    on_epoch_end = engine._Epochs.on_epoch_end

    def stop(*_):
        raise Killed

    def die(self, e, logs=None):
        if e + 1 == epoch and before_checkpoint:
            self.model.save_weights = stop
        on_epoch_end(self, e, logs)
        if e + 1 == epoch:
            look(self.model)
            stop()

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(engine._Epochs, "on_epoch_end", die)
        yield


def end_of(folder):
    """Returns (the log of a finished run without its speed, its final weights)."""
    log = [row | {"images_per_second": None} for row in read_log(folder / "log.csv")]
    return log, keras_preact.load_run(folder)[0].get_weights()


def outputs_of(model, images):
    return keras.ops.convert_to_numpy(model(images, training=False))


def relative_error(a, b):
    return np.abs(np.asarray(a, "float64") - b).max() / np.abs(b).max()


def disagreement(model, reference_kwargs, weights=None):
    """Relative error between `model` and the reference, which may take other `weights` than the model's."""
    images = images_like(model.input_shape[1:])
    expected = reference.forward(weights or weights_of(model), images, **reference_kwargs)
    return relative_error(outputs_of(model, images), expected)


def run_python(code, *args, cwd, timeout=600, **env):
    """Runs `code` in a Python process of its own, and returns what it prints."""
    path = os.pathsep.join([str(PACKAGE_PARENT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)} | env
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], cwd=cwd, env=env, timeout=timeout,
        capture_output=True, text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
