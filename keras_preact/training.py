"""The training engine: `model.fit` by a recipe, with a log, checkpoints that survive a kill, and curves."""
import csv
import dataclasses
import difflib
import importlib.util
import json
import math
import os
import platform
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import keras

from keras_preact import datasets, models, pretrained, recipes
from keras_preact.networks import NetworkConfig, ResNet
from keras_preact.version import __version__

CHECKPOINT, FINAL, LOG, RUN, CURVE = "checkpoint.weights.h5", "final.weights.h5", "log.csv", "run.json", "curve.png"


@dataclasses.dataclass(frozen=True)
class Engine:
    """How a recipe is run, which leaves what it computes the same up to rounding.

    Args:
        strategy: "none"; "mirrored" for every GPU of this machine by `tf.distribute.MirroredStrategy`; or
            "multi-worker" for several machines by `tf.distribute.MultiWorkerMirroredStrategy`, which takes the cluster
            from the environment variable TF_CONFIG and runs the same command on each, `output` on a shared disk. The
            batch is shared out, and batch normalization stays per device, as in the paper; its moving statistics are
            averaged over the devices after each epoch.
        precision: Keras's dtype policy, such as "float32" or "mixed_bfloat16".
        jit_compile: whether XLA compiles the step; "auto" leaves it to Keras, which is slower on CPUs with TensorFlow.
        steps_per_execution: training steps in one call of the compiled function.
    """

    strategy: str = "none"
    precision: str = "float32"
    jit_compile: bool | str = "auto"
    steps_per_execution: int = 1

    def __post_init__(self):
        if self.strategy not in STRATEGIES:
            raise ValueError(
                f"`strategy` must be one of {', '.join(map(repr, STRATEGIES))}. Received: {self.strategy!r}"
            )


def _mirrored():
    return _tensorflow("mirrored").distribute.MirroredStrategy()


def _multi_worker():
    tf = _tensorflow("multi-worker")
    text = os.environ.get("TF_CONFIG", "")
    try:
        cluster = json.loads(text)
        workers, index = cluster["cluster"]["worker"], cluster["task"]["index"]
        workers[index]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            "strategy='multi-worker' wants TF_CONFIG to name the workers and which of them this is, as in "
            '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}. '
            f"Received: {text!r} ({type(error).__name__}: {error})"
        ) from error
    return tf.distribute.MultiWorkerMirroredStrategy()


def _tensorflow(strategy):
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"strategy={strategy!r} is TensorFlow's: set KERAS_BACKEND=tensorflow. "
            f"Received: the backend {keras.backend.backend()!r}"
        )
    import tensorflow as tf

    return tf


STRATEGIES = {"none": lambda: None, "mirrored": _mirrored, "multi-worker": _multi_worker}


class _MultiWorkerModel(keras.Model):
    """A network that `fit` can train under MultiWorkerMirroredStrategy, which plain Keras models cannot (keras#20585).

    What fit builds metrics from are values of all replicas, which have no shape; and it averages the results of a step
    over an axis that scalars lack.
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        shapes = (1, *self.input_shape[1:]), (1, *self.output_shape[1:])
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=tuple(keras.ops.zeros(shape) for shape in shapes))

    def train_step(self, data):
        return {name: keras.ops.reshape(value, (1,)) for name, value in super().train_step(data).items()}

    def test_step(self, data):
        return {name: keras.ops.reshape(value, (1,)) for name, value in super().test_step(data).items()}


class _AverageStatistics(keras.callbacks.Callback):
    """Averages the moving statistics of batch normalization over the replicas, after each epoch of training."""

    def __init__(self, strategy):
        super().__init__()
        self.strategy = strategy

    def on_test_begin(self, logs=None):
        import tensorflow as tf

        statistics = [variable.value for variable in self.model.non_trainable_variables if "moving" in variable.name]

        @tf.function
        def average():
            replica = tf.distribute.get_replica_context()
            for variable, mean in zip(statistics, replica.all_reduce("MEAN", [v.read_value() for v in statistics])):
                variable.assign(mean)

        self.strategy.run(average)


class SGD(keras.optimizers.SGD):
    """Keras's SGD with the L2 gradient of the paper, g + d * w; Keras's own `weight_decay` is decoupled from momentum.

    Args:
        l2: the factor d.
        decay: what it acts on, "all" variables or the "kernels" of convs and dense layers alone.
        **kwargs: as of `keras.optimizers.SGD`.
    """

    def __init__(self, *args, l2=0.0, decay="all", **kwargs):
        super().__init__(*args, **kwargs)
        self.l2, self.decay = l2, decay

    def build(self, variables):
        # TensorFlow hands its own variables to update_step, whose names are not Keras's.
        self._decayed = {i for i, v in enumerate(variables) if self.decay == "all" or v.name == "kernel"}
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        if self.l2 and self._get_variable_index(variable) in self._decayed:
            gradient = keras.ops.add(gradient, keras.ops.multiply(keras.ops.cast(variable, gradient.dtype), self.l2))
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return super().get_config() | {"l2": self.l2, "decay": self.decay}


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


def train(model, data, recipe="cifar_paper", output="run", seed=1, engine=None, hold_out=0, verbose="auto"):
    """Trains a network by a recipe, or goes on where the same call was stopped before.

    An interrupted run ends with the weights and the log of an uninterrupted one on the same machine, to the bit.

    Args:
        model: the name of a builder, or a `NetworkConfig`; it starts from random weights.
        data: what `datasets.load` takes: a TensorFlow data set by name, an .npz file, a folder, or arrays.
        recipe: the name of a recipe, or a `Recipe`.
        output: folder for run.json (what ran, whole), log.csv (a line an epoch; errors in percent), curve.png,
            tensorboard/ on TensorFlow if TensorBoard is installed, checkpoint.weights.h5 and, at the end,
            final.weights.h5.
        seed: of the initial weights, the order of the data and its augmentation.
        engine: an `Engine`; default on one device in float32.
        hold_out: measure on so many training images, held out, instead of on the test images: what hyper-parameters
            are to be chosen on.
        verbose: 0 for silence, 1 for a progress bar with the time left, 2 for a line an epoch; "auto" is 1 in a
            terminal and 2 elsewhere.

    Returns:
        The lines of the log, as dicts of text.

    Raises:
        ValueError: an unknown model, data set, recipe or strategy; a batch larger than the data or not divisible by
            the devices; an output folder that holds another run, or cannot be written to.
        Diverged: the loss became infinite or NaN.
    """
    recipe = recipe if isinstance(recipe, recipes.Recipe) else recipes.find(recipe)
    engine = engine or Engine()
    config = config_of(model)
    strategy = STRATEGIES[engine.strategy]()
    data = datasets.load(data, config.input_size)
    if hold_out:
        data = data.hold_out(hold_out)
    _check_batch(recipe, data, strategy)
    run = _describe(model, config, data, recipe, seed, engine)
    folder, steps = Path(output), len(data.x_train) // recipe.batch_size
    chief = strategy is None or strategy.extended.should_checkpoint
    if chief:
        _claim(folder, run)

    if verbose == "auto":
        verbose = 0 if not chief else 1 if sys.stdout.isatty() else 2
    keras.utils.set_random_seed(seed)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(engine.precision)
    try:
        with strategy.scope() if strategy else nullcontext():
            rates = recipe.learning_rates(steps)
            network = compiled(config, data, recipe, rates, engine)
            epoch = _restore(network, folder) // steps
    finally:
        keras.config.set_dtype_policy(policy)
    if epoch < recipe.epochs:
        network.fit(
            datasets.TrainingBatches(data, recipe, seed, epoch), epochs=recipe.epochs, initial_epoch=epoch,
            shuffle=False, verbose=verbose, validation_data=datasets.test_split(data), validation_batch_size=500,
            callbacks=_callbacks(folder, rates, len(data.x_train), strategy, chief),
        )
    log = read_log(folder / LOG)
    if chief:
        # The same graph without its optimizer.
        replace(folder / FINAL, keras.Model(network.inputs, network.outputs).save_weights)
        plot(log, folder / CURVE, f"{run['model']} on {data.name}, {recipe.name}")
    return log


def read_log(path):
    """Returns the lines of a training log as dicts of text; none if there is no log."""
    if not Path(path).exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def config_of(model):
    """Returns the `NetworkConfig` that `model`, one or the name of a builder, stands for."""
    if isinstance(model, NetworkConfig):
        return model
    if model not in models.CONFIGS:
        near = difflib.get_close_matches(str(model), models.CONFIGS, n=3)
        raise ValueError(
            "`model` must be a NetworkConfig or the name of a builder"
            + (f", such as {', '.join(near)}" if near else "; list_models() names them")
            + f". Received: {model!r}"
        )
    return models.CONFIGS[model]


def _check_batch(recipe, data, strategy):
    if recipe.batch_size > len(data.x_train):
        raise ValueError(
            f"`batch_size` must be at most the {len(data.x_train)} training images of {data.name}. "
            f"Received: {recipe.batch_size}"
        )
    replicas = strategy.num_replicas_in_sync if strategy else 1
    if recipe.batch_size % replicas:
        raise ValueError(
            f"The batch is shared out over {replicas} devices, so `batch_size` must be a multiple of {replicas}. "
            f"Received: {recipe.batch_size}"
        )


def _describe(model, config, data, recipe, seed, engine):
    """What is written down of a run: all that determines its result, and where it ran."""
    images = {"train_images": len(data.x_train), "test_images": len(data.x_test), "classes": len(data.labels)}
    return {
        "model": model if isinstance(model, str) else "custom",
        "config": dataclasses.asdict(config),
        "data": {"name": data.name} | images | {"preprocessing": dataclasses.asdict(data.preprocessing)},
        "labels": list(data.labels),
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "engine": dataclasses.asdict(engine),
        "environment": {
            "keras_preact": __version__, "keras": keras.version(), "backend": keras.backend.backend(),
            "python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count(),
            "devices": _devices(),
        },
    }


def _devices():
    try:
        return [str(device) for device in keras.distribution.list_devices()]
    except (NotImplementedError, RuntimeError):
        return []


def _claim(folder, run):
    """Writes run.json, or compares it with the one that is there."""
    run = json.loads(json.dumps(run))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(1_000_000))
    except OSError as error:
        raise ValueError(f"`output` must be a folder that can be written to: {error}") from error
    path = folder / RUN
    if path.exists():
        before = json.loads(path.read_text())
        differences = list(_differences(before, run))
        if differences:
            raise ValueError(
                f"{folder} holds a run that differs from this one; give another `output`, or the same arguments.\n  "
                + "\n  ".join(differences)
            )
    else:
        replace(path, lambda new: Path(new).write_text(json.dumps(run, indent=2) + "\n"))


def _differences(before, now, name=""):
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            if key != "environment":
                yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name}: {before!r} before, {now!r} now"


def compiled(config, data, recipe, rates, engine):
    shape = data.x_train.shape[1:]
    if keras.config.image_data_format() == "channels_first":
        shape = (shape[2], *shape[:2])
    network = ResNet(config, input_shape=shape, classes=len(data.labels), classifier_activation=None)
    if engine.strategy == "multi-worker":
        network = _MultiWorkerModel(network.inputs, network.outputs, name=network.name)
    network.compile(
        SGD(rates, recipe.momentum, recipe.nesterov, l2=recipe.weight_decay, decay=recipe.decay),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=_jit(engine.jit_compile),
        steps_per_execution=engine.steps_per_execution,
    )
    network.optimizer.build(network.trainable_variables)
    return network


def _jit(wish):
    # On CPUs TensorFlow's own kernels are about twice as fast as XLA's.
    if wish == "auto" and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    return wish


def _restore(network, folder):
    """Loads the checkpoint, if there is one, and returns the number of steps behind it."""
    if (folder / CHECKPOINT).exists():
        network.load_weights(folder / CHECKPOINT)
    return int(keras.ops.convert_to_numpy(network.optimizer.iterations))


def _callbacks(folder, rates, images, strategy, chief):
    callbacks = [_AverageStatistics(strategy)] if strategy else []
    callbacks.append(_StopOnDivergence(folder, rates))
    if not chief:
        return callbacks
    callbacks.append(_Epochs(folder, rates, images))
    if keras.backend.backend() == "tensorflow" and importlib.util.find_spec("tensorboard"):
        callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False))
    return callbacks


class _StopOnDivergence(keras.callbacks.Callback):
    EVERY = 20  # steps; to look at the loss waits for the device

    def __init__(self, folder, rates):
        super().__init__()
        self.folder, self.rates = folder, rates

    def on_epoch_begin(self, epoch, logs=None):
        self.before = epoch * self.params["steps"]

    def on_train_batch_end(self, batch, logs=None):
        self.step = self.before + batch
        if batch % self.EVERY == 0:
            self._check("training", logs["loss"])

    def on_epoch_end(self, epoch, logs=None):
        self._check("training", logs["loss"])
        self._check("test", logs["val_loss"])

    def _check(self, which, loss):
        if not math.isfinite(loss):
            good, rate = self.folder / CHECKPOINT, float(self.rates(self.step))
            raise Diverged(
                f"The {which} loss is {float(loss)} by step {self.step}, at a learning rate of {rate:g}. "
                + (f"The last good checkpoint is {good}." if good.exists() else "There is no checkpoint yet.")
                + " Lower the learning rate or lengthen its warm-up, and give another `output`."
            )


class _Epochs(keras.callbacks.Callback):
    """At the end of an epoch: one line of the log, then the checkpoint, each whole or not at all.

    A kill between the two leaves the log one line ahead; the epoch is then run again, and its line written again.
    """

    def __init__(self, folder, rates, images):
        super().__init__()
        self.folder, self.rates, self.images = folder, rates, images

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.monotonic()

    def on_test_begin(self, logs=None):
        self.trained = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        row = {
            "epoch": epoch + 1,
            "loss": f"{logs['loss']:.5f}",
            "error": f"{100 * (1 - logs['accuracy']):.3f}",
            "test_loss": f"{logs['val_loss']:.5f}",
            "test_error": f"{100 * (1 - logs['val_accuracy']):.2f}",
            "learning_rate": f"{float(self.rates((epoch + 1) * self.params['steps'] - 1)):.3g}",
            "images_per_second": f"{self.images / (self.trained - self.start):.0f}",
        }
        rows = [old for old in read_log(self.folder / LOG) if int(old["epoch"]) <= epoch] + [row]
        replace(self.folder / LOG, lambda new: write_csv(new, rows))
        replace(self.folder / CHECKPOINT, self.model.save_weights)


def write_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def replace(path, write):
    """Calls `write` with a temporary name beside `path`, and renames the file it writes: whole or not at all."""
    new = path.with_name(f"new-{path.name}")
    write(new)
    os.replace(new, path)


def plot(log, path, title):
    """Writes a PNG of the curves in the style of the paper's Figs. 1 and 6.

    Test error is solid, training loss dashed on a log scale.
    """
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    epochs = [int(row["epoch"]) for row in log]
    figure, left = plt.subplots(figsize=(6, 4))
    left.semilogy(epochs, [float(row["loss"]) for row in log], "C0--", label="training loss")
    left.set(xlabel="epoch", ylabel="training loss", title=title)
    right = left.twinx()
    right.plot(epochs, [float(row["test_error"]) for row in log], "C3-", label="test error")
    right.set(ylabel="test error (%)", ylim=(0, None))
    figure.legend(loc="upper right", bbox_to_anchor=(0.88, 0.88))
    figure.tight_layout()
    replace(Path(path), lambda new: figure.savefig(new, dpi=100))
    plt.close(figure)


def load_run(folder):
    """Returns (the network of a finished run with its final weights and a softmax, what run.json says of it).

    Raises:
        ValueError: the folder holds no finished run.
    """
    folder = Path(folder)
    if not (folder / RUN).exists() or not (folder / FINAL).exists():
        raise ValueError(f"{folder} holds no finished run: {RUN} and {FINAL} are what it ends with.")
    run = json.loads((folder / RUN).read_text())
    layers = pretrained.read(folder / FINAL)
    channels = len(run["data"]["preprocessing"]["mean"])
    size = run["data"]["preprocessing"]["size"]
    shape = (*size, channels) if keras.config.image_data_format() == "channels_last" else (channels, *size)
    model = ResNet(NetworkConfig(**run["config"]), input_shape=shape, classes=len(run["labels"]))
    pretrained.assign(model, layers, folder / FINAL)
    return model, run
