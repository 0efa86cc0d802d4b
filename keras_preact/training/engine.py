"""The training engine: `model.fit` by a recipe, with a log, checkpoints that survive a kill, and curves."""
import dataclasses
import datetime
import math
import os
import platform
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras

from keras_preact._support import atomic
from keras_preact._support.checks import check_choice, is_count
from keras_preact._support.paths import local
from keras_preact._support.settings import dtype_policy, random_seed
from keras_preact.data import datasets, streams
from keras_preact.data.preprocessing import image_shape
from keras_preact.networks import files
from keras_preact.networks.architectures import CONFIGS, named
from keras_preact.networks.building import ResNet
from keras_preact.networks.config import NetworkConfig
from keras_preact.networks.graph import deep_enough, normalizations_of, parts_of
from keras_preact.training import averaging, forms, recipes, runs, tracking
from keras_preact.training.distribution import STRATEGIES
from keras_preact.training.forms.fused_batch_norm import fuse_batch_norm
from keras_preact.training.forms.looping import SCANS, Looped, looped, unrolled
from keras_preact.training.forms.rematerialization import Rematerialized
from keras_preact.training.forms.stochastic_depth import Stochastic
from keras_preact.training.optimizers import optimizer_of
from keras_preact.training.recipes import Recipe
from keras_preact.version import __version__

TOP5 = "top5"  # the metric
CPU = Path("/proc/cpuinfo")  # what Linux tells of it


@dataclasses.dataclass(frozen=True)
class Engine:
    """How a recipe is run, which leaves what it computes the same up to rounding.

    Args:
        strategy: "none"; "mirrored" for every GPU of this machine by `tf.distribute.MirroredStrategy`; or
            "multi-worker" for several machines by `tf.distribute.MultiWorkerMirroredStrategy`, which takes the cluster
            from the environment variable TF_CONFIG and runs the same command on each, `output` on a shared disk. The
            batch is shared out, and batch normalization stays per device, as in the paper; its moving statistics are
            averaged over the devices after each epoch. "jax" for all devices of one or several machines by
            `keras.distribution.DataParallel`, on several as `keras.distribution.initialize` takes them from the
            environment (KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES, _PROCESS_ID); there the batch is
            normalized as a whole.
        precision: Keras's dtype policy: "float32", "float64", "mixed_bfloat16" or "mixed_float16".
        jit_compile: whether XLA compiles the step; "auto" leaves it to Keras, which on TensorFlow does so on one GPU.
        steps_per_execution: training steps in one call of the compiled function; a divisor of the steps of an epoch
            where images are read while they are used.
        batch_norm: of tf.distribute's strategies, "replica" or "synchronized", over the whole batch.
        batch_norm_group: images whose statistics batch normalization takes together, a divisor of those on one device:
            64 with a batch of 128 is what the paper's two GPUs did. Default: all.
        rematerialize: whether activations are computed anew for the gradients instead of kept: memory as the square
            root of the depth.
        replicas: devices of the strategy "mirrored"; default every GPU, or else the CPU. Without GPUs the CPU acts as
            so many, to try several on one machine; it must do so before TensorFlow computes anything in the process.
        loop: whether units that are alike are one loop over stacked weights, for which the step is compiled in a
            fraction of the time and memory; TensorFlow and JAX, on one device or with the strategy "jax". "auto" for
            the depths at which it was measured to win. Files are the same, so that a run can go on in the other form.
            Networks with dropout are not looped where activations are rematerialized.
        track: where the log can be watched, besides the folder: "tensorboard"; "wandb", as the environment variables of
            Weights & Biases say; "none"; or "auto" for TensorBoard on TensorFlow where it is installed.

    Raises:
        ValueError: a value that is not among the choices, or does not go with another one.

    Example:

    >>> kp.Engine(strategy="mirrored", precision="mixed_bfloat16").batch_norm
    'replica'
    """

    strategy: str = "none"
    precision: str = "float32"
    jit_compile: bool | str = "auto"
    steps_per_execution: int = 1
    batch_norm: str = "replica"
    batch_norm_group: int | None = None
    rematerialize: bool = False
    loop: bool | str = "auto"
    replicas: int | None = None
    track: str = "auto"

    def __post_init__(self):
        check_choice("strategy", self.strategy, STRATEGIES)
        # In half precision weights, statistics and files would be so, too.
        check_choice("precision", self.precision, ("float32", "float64", "mixed_bfloat16", "mixed_float16"))
        check_choice("jit_compile", self.jit_compile, (True, False, "auto"))
        check_choice("batch_norm", self.batch_norm, ("replica", "synchronized"))
        check_choice("loop", self.loop, (True, False, "auto"))
        check_choice("track", self.track, tracking.CHOICES)
        tracking.check(self.track)
        if self.replicas is not None and (self.strategy != "mirrored" or not is_count(self.replicas)):
            raise ValueError(
                "`replicas` must be a positive integer, with strategy='mirrored'. "
                f"Received: {self.replicas!r} with strategy={self.strategy!r}"
            )
        if self.batch_norm_group is not None and self.batch_norm == "synchronized":
            raise ValueError(
                "batch_norm='synchronized' takes the statistics of the whole batch; leave out `batch_norm_group`. "
                f"Received: {self.batch_norm_group}"
            )
        if self.batch_norm == "synchronized" and keras.backend.backend() != "tensorflow":
            raise ValueError(
                "batch_norm='synchronized' is of TensorFlow's strategies; JAX normalizes over the whole batch anyway. "
                f"Received: the backend {keras.backend.backend()!r}"
            )
        if self.loop is True and not self._can_loop():
            raise ValueError(
                f"loop=True wants the strategy 'none' or 'jax', on one of the backends {', '.join(SCANS)}. "
                f"Received: strategy={self.strategy!r} on {keras.backend.backend()!r}"
            )

    def devices(self):
        """Returns the `Devices` that a run is shared out over."""
        return STRATEGIES[self.strategy](**({"replicas": self.replicas} if self.replicas else {}))

    def _can_loop(self):
        return self.strategy in ("none", "jax") and keras.backend.backend() in SCANS

    def loops(self, config):
        """Returns whether the network of `config` is trained in its looped form."""
        if config.join[0] == "dropout" and self.rematerialize:
            return False
        if self.loop != "auto":
            return self.loop
        if not self._can_loop():
            return False
        if keras.backend.backend() == "jax":
            # On CPUs XLA does not thread what is inside a loop; without, it runs out of memory while it compiles.
            return config.depth >= (100 if _accelerators() else 500)
        # XLA would compile every unit by itself, loop or not.
        return config.depth >= 100 and not (_accelerators() if self.jit_compile == "auto" else self.jit_compile)


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


def train(
    model: str | NetworkConfig,
    data: Any,
    recipe: str | Recipe = "cifar_paper",
    output: str | os.PathLike = "run",
    seed: int = 1,
    engine: Engine | None = None,
    hold_out: int = 0,
    verbose: int | str = "auto",
    weights: str | os.PathLike | keras.Model | None = None,
) -> list[dict[str, str]]:
    """Trains a network by a recipe, or goes on where the same call was stopped before.

    An interrupted run ends with the weights and the log of an uninterrupted one on the same machine, to the bit.

    Args:
        model: the name of a builder, or a `NetworkConfig`.
        data: a TensorFlow data set by name; an .npz file of x_train, y_train, x_test and y_test, or a dict of these; a
            folder of class folders of images; a .csv file with the columns file, label and split; or (train, test), two
            pairs of arrays or data sets of images and labels. Images are uint8; labels are numbers from 0, or names.
        recipe: the name of a recipe, or a `Recipe`.
        output: folder for run.json (what ran, whole), log.csv (a line an epoch; errors in percent, with more than ten
            classes also that of the five best), curve.png, tensorboard/ or wandb/ as `engine` says,
            checkpoint.weights.h5 and, at the end, final.weights.h5.
        seed: of the initial weights, the order of the data and its augmentation.
        engine: an `Engine`; default on one device in float32.
        hold_out: measure on so many training images, held out, instead of on the test images: what hyper-parameters
            are to be chosen on.
        verbose: 0 for silence, 1 for a progress bar with the time left, 2 for a line an epoch; "auto" is 1 in a
            terminal and 2 elsewhere.
        weights: what the network starts from, a .weights.h5 or .keras file or a `keras.Model`; a last layer of another
            number of classes starts from random values. Default: all of them.

    Returns:
        The lines of the log, as dicts of text.

    Raises:
        ValueError: an unknown model, data set, recipe or strategy; a batch larger than the data or not divisible by
            the devices; a warm-up longer than the run; `weights` that cannot be read or do not fit; an output folder
            that holds another run, or one on other data or replicas, is damaged, is in use by another process, or
            cannot be written to.
        Diverged: the loss became infinite or NaN.

    Example:

    >>> recipe = kp.Recipe("short", "this example", epochs=1, batch_size=16, learning_rate=0.05, schedule="cosine")
    >>> data = (images, labels), (images, labels)
    >>> log = kp.train(kp.NetworkConfig((1, 1), (8, 16)), data, recipe, "runs/short", verbose=0)
    >>> [line["epoch"] for line in log]
    ['1']
    """
    recipe = recipe if isinstance(recipe, recipes.Recipe) else recipes.find(recipe)
    engine = engine or Engine()
    config = model if isinstance(model, NetworkConfig) else named(model)
    if recipe.survival < 1:
        _check_stochastic(config, engine)
    _check_tuning(recipe, engine, weights)
    folder = local("output", output)
    devices = engine.devices()
    data = datasets.for_recipe(data, recipe, config)
    if hold_out:
        data = data.hold_out(hold_out)
    _check_batch(recipe, data, devices, engine)
    test_batch = devices.test_batch(data.test_images, datasets.batch_of(data.image_shape))
    start = None if weights is None else files.read_or_take(weights)
    run = _describe(config, data, recipe, seed, engine, devices) | {
        "hold_out": hold_out, "start": start and files.digest(start), "base": getattr(weights, "origin", None),
    }
    steps = data.train_images // recipe.batch_size
    rates = recipe.learning_rates(steps)
    if verbose == "auto":
        verbose = 0 if not devices.chief else 1 if sys.stdout.isatty() else 2
    if verbose and recipe.warmup != recipe.warmup_steps:
        print(
            f"Warm-up takes {recipe.warmup} steps in {recipe.epochs} epochs, as {recipe.warmup_steps} in "
            f"{recipe.warmup_of}.", flush=True
        )
    if verbose and engine.precision == "float32" and _computes_bfloat16():
        print("This CPU has instructions for bfloat16: precision='mixed_bfloat16' trains faster.", flush=True)
    with (
        runs.claimed(folder, run) if devices.chief else nullcontext(), random_seed(seed),
        dtype_policy(engine.precision), devices.scope(), deep_enough(config), streams.naming_unreadable(data),
    ):
        network = compiled(config, data, recipe, rates, engine, devices.model, seed)
        if start:
            _start_from(start, network, weights, len(data.labels))
        epoch = _restore(network, folder, steps)
        changed = runs.go_on(folder, run, epoch) if devices.chief and 0 < epoch < recipe.epochs else ()
        if changed and verbose:
            print(f"Goes on after epoch {epoch}, as run.json records, with\n  " + "\n  ".join(changed), flush=True)
        averages = [averaging.Averaged(data.training(recipe, seed)["x"])] if recipe.ema else []
        if epoch < recipe.epochs:
            network.fit(
                **data.training(recipe, seed, epoch, devices.part), **data.validation(test_batch, devices.part),
                epochs=recipe.epochs, initial_epoch=epoch, shuffle=False, verbose=verbose,
                callbacks=devices.callbacks() + averages
                + [_StopOnDivergence(folder, rates), _Epochs(folder, rates, data.train_images, devices.chief)]
                + tracking.callbacks(engine.track if devices.chief else "none", folder, run),
            )
        for averaged in averages:
            averaging.average(network, averaged.batches)
        # The same graph without its optimizer.
        plain = unrolled(network)
        _save(keras.Model(plain.inputs, plain.outputs), folder / runs.FINAL, devices.chief)
    log = runs.read_log(folder / runs.LOG)
    if devices.chief:
        title = f"{run['model']} on {data.name}, {recipe.name}"
        runs.plot({"": log}, folder / runs.CURVE, title, "held-out" if hold_out else "test")
    return log


def _check_batch(recipe, data, devices, engine):
    if recipe.batch_size > data.train_images:
        raise ValueError(
            f"`batch_size` must be at most the {data.train_images} training images of {data.name}. "
            f"Received: {recipe.batch_size}"
        )
    if recipe.batch_size % devices.replicas:
        raise ValueError(
            f"The batch is shared out over {devices.replicas} devices, so `batch_size` must be a multiple of "
            f"{devices.replicas}. Received: {recipe.batch_size}"
        )
    if recipe.accumulate > 1 and devices.strategy:
        raise ValueError(
            "Gradients are not accumulated with TensorFlow's strategies: leave out `accumulate`, or the strategy. "
            f"Received: accumulate={recipe.accumulate} with strategy={engine.strategy!r}"
        )
    # JAX normalizes the whole batch.
    share = recipe.batch_size // (devices.replicas if devices.strategy else 1)
    group = engine.batch_norm_group
    if group is not None and (not is_count(group) or share % group):
        raise ValueError(f"`batch_norm_group` must divide the {share} images on one device. Received: {group!r}")
    steps = data.train_images // recipe.batch_size
    if isinstance(data, streams.Stream) and steps % engine.steps_per_execution:
        raise ValueError(
            "Images that are read while they are used come without end, so `steps_per_execution` must divide the "
            f"{steps} steps of an epoch. Received: {engine.steps_per_execution}"
        )


def _describe(config, data, recipe, seed, engine, devices):
    """What is written down of a run: all that determines its result, and where it ran."""
    images = {"train_images": data.train_images, "test_images": data.test_images, "classes": len(data.labels)}
    return {
        "model": next((name for name, known in CONFIGS.items() if known == config), "custom"),
        "config": dataclasses.asdict(config),
        "data": {"name": data.name} | images | {
            "preprocessing": dataclasses.asdict(data.preprocessing), "digest": data.digest(),
        },
        "labels": list(data.labels),
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "engine": dataclasses.asdict(engine),
        # Each of which normalizes its own share; JAX normalizes the whole batch.
        "replicas": devices.replicas if devices.strategy else 1,
        "environment": {
            "keras_preact": __version__, "keras": keras.version(), "backend": keras.backend.backend(),
            "python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count(),
            "devices": _devices(),
        },
    }


def _devices():
    try:
        return [str(device) for device in keras.distribution.list_devices()]
    except (AttributeError, NotImplementedError, RuntimeError):
        return []  # PyTorch's Keras knows none


def _check_stochastic(config, engine):
    if engine.rematerialize:
        raise ValueError(
            "Stochastic depth goes with units that are not rematerialized; leave out `rematerialize`, or `survival`."
        )
    if config.join[0] != "plain":
        raise ValueError(
            f"Stochastic depth leaves out branches that are added, join='plain'. Received: {config.join[0]!r}"
        )


def _check_tuning(recipe, engine, weights):
    tuned = [field for field, value in (("head_epochs", 0), ("layer_decay", 1), ("bn", "trained"))
             if getattr(recipe, field) != value]
    if tuned and weights is None:
        raise ValueError(
            f"{' and '.join(tuned)} of a recipe are for a run that starts from trained weights: give `weights`, or "
            "another recipe."
        )
    if engine.loop is True and not _loopable(recipe):
        raise ValueError(
            "Units are not looped with stochastic depth, frozen batch normalization, accumulated gradients, averages "
            "of weights, or another optimizer than SGD and Muon; leave out `loop`."
        )


def _loopable(recipe):
    plain = recipe.survival == 1 and recipe.bn == "trained" and recipe.accumulate == 1 and not recipe.ema
    return plain and recipe.optimizer in ("sgd", "muon")


def compiled(config, data, recipe, rates, engine, model=keras.Model, seed=0):
    shape = image_shape(*data.image_shape)
    network = ResNet(config, input_shape=shape, classes=len(data.labels), classifier_activation=None)
    if engine.loops(config) and _loopable(recipe):
        trained = network, looped(network, config, engine.rematerialize, engine.batch_norm_group, model)
    else:
        options = {}
        if recipe.survival < 1:
            model, options = forms.on(Stochastic, model), {"last": recipe.survival, "seed": seed}
        elif engine.rematerialize:
            model = forms.on(Rematerialized, model)
        if model is not keras.Model:
            network = model(network.inputs, network.outputs, name=network.name, **options)
        trained = network,
    for norm in normalizations_of(network):
        norm.synchronized = engine.batch_norm == "synchronized"
        norm.trainable = recipe.bn == "trained"
    fuse_batch_norm(trained[-1], engine.batch_norm_group)
    for form in trained:
        form.compile(
            optimizer_of(recipe, rates, parts_of(network), data.train_images // recipe.batch_size),
            keras.losses.CategoricalCrossentropy(from_logits=True),
            metrics=["accuracy", *([keras.metrics.TopKCategoricalAccuracy(5, TOP5)] if len(data.labels) > 10 else [])],
            jit_compile=engine.jit_compile,
            steps_per_execution=engine.steps_per_execution,
        )
    form.optimizer.build(form.trainable_variables)
    return form


def _accelerators():
    return [device for device in _devices() if not device.startswith("cpu")]


def _computes_bfloat16():
    """Returns whether TensorFlow trains on a CPU with AVX512_BF16 or AMX, as far as the system tells (Linux)."""
    if keras.backend.backend() != "tensorflow" or _accelerators():
        return False
    try:
        flags = CPU.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def _start_from(layers, network, source, classes):
    keep_head = files.classes(layers) != classes
    files.assign(unrolled(network), layers, getattr(source, "name", source), keep_head=keep_head)
    if isinstance(network, Looped):
        network.roll()


def _restore(network, folder, steps):
    """Loads the checkpoint, if there is one, and returns the number of epochs, of so many steps, behind it."""
    if not (folder / runs.CHECKPOINT).exists():
        return 0
    epoch = runs.restore(folder / runs.CHECKPOINT, network)
    if epoch is None:
        # Steps whose gradients overflowed in mixed_float16 are not counted.
        epoch = math.ceil(int(keras.ops.convert_to_numpy(network.optimizer.iterations)) / steps)
    return epoch


def _save(network, path, chief, epoch=None):
    if chief:
        atomic.replace(path, lambda new: runs.save(new, network, epoch))
    else:
        # To gather values that live on several machines all of them must take part.
        with tempfile.TemporaryDirectory() as scratch:
            network.save_weights(Path(scratch, path.name))


class _StopOnDivergence(keras.callbacks.Callback):
    EVERY = 20  # steps; to look at the loss waits for the device

    def __init__(self, folder, rates):
        super().__init__()
        self.folder, self.rates = folder, rates

    def on_epoch_begin(self, epoch, logs=None):
        self.before, self.checked = epoch * self.params["steps"], -self.EVERY

    def on_train_batch_end(self, batch, logs=None):
        self.step = self.before + batch
        if batch - self.checked >= self.EVERY:
            self.checked = batch
            self._check("training", logs["loss"])

    def on_epoch_end(self, epoch, logs=None):
        self._check("training", logs["loss"])
        self._check("test", logs["val_loss"])

    def _check(self, which, loss):
        if not math.isfinite(loss):
            good, rate = self.folder / runs.CHECKPOINT, float(self.rates(self.step))
            raise Diverged(
                f"The {which} loss is {float(loss)} by step {self.step}, at a learning rate of {rate:g}. "
                + (f"The last good checkpoint is {good}." if good.exists() else "There is no checkpoint yet.")
                + " Lower the learning rate or lengthen its warm-up, and give another `output`."
            )


class _Epochs(keras.callbacks.Callback):
    """At the end of an epoch: one line of the log, then the checkpoint, each whole or not at all.

    A kill between the two leaves the log one line ahead; the epoch is then run again, and its line written again.
    """

    def __init__(self, folder, rates, images, chief):
        super().__init__()
        self.folder, self.rates, self.images, self.chief = folder, rates, images, chief

    def on_train_begin(self, logs=None):
        self.began = None  # (epoch, time) of the first epoch of this process

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.monotonic()
        first, began = self.began = self.began or (epoch, self.start)
        # At the end of an epoch the progress bar still has its line.
        if epoch > first and self.params["verbose"] and self.chief:
            left = (self.params["epochs"] - epoch) * (self.start - began) / (epoch - first)
            print(f"{datetime.timedelta(seconds=round(left))} left in this run", flush=True)

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
            **({"test_error5": f"{100 * (1 - logs[f'val_{TOP5}']):.2f}"} if f"val_{TOP5}" in logs else {}),
            "images_per_second": f"{self.images / (self.trained - self.start):.0f}",
        }
        if self.chief:
            runs.check_there(self.folder)
            rows = [old for old in runs.read_log(self.folder / runs.LOG) if int(old["epoch"]) <= epoch]
            # Older versions had fewer columns.
            atomic.write_csv(self.folder / runs.LOG, [dict.fromkeys(row, "") | old for old in rows] + [row])
        _save(self.model, self.folder / runs.CHECKPOINT, self.chief, epoch + 1)
