"""The fastest runtime that is installed, for a network whose predictions are wanted from Python."""
import hashlib
import importlib
import json
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_preact._support import atomic, kinds
from keras_preact._support.checks import check_choice, check_count, from_values
from keras_preact._support.paths import existing, local, no_pipe
from keras_preact.data.preprocessing import Preprocessing, load_image
from keras_preact.exporting import files, preparation, runtimes
from keras_preact.exporting.runtimes import AUTO, CHOICES, KERAS, OF_SUFFIX, PRECISIONS, RUNTIMES

OWN = kinds.ZIP, kinds.LITERT  # what exported files may be by their first bytes
ROUNDS, SECONDS = 3, 0.2  # of measuring a runtime


class Wanted(NamedTuple):
    """What is asked of a runtime; as of `predictor`."""

    batch_size: int
    threads: int | None
    precision: str

    def check(self):
        check_count("batch_size", self.batch_size)
        if self.threads is not None:
            check_count("threads", self.threads)
        check_choice("precision", self.precision, PRECISIONS)

    @property
    def able(self):
        """The runtimes that do so, installed or not."""
        others = [
            name for name, runtime in RUNTIMES.items()
            if self.precision in runtime.precisions and (self.threads is None or runtime.has_threads)
        ]
        return [KERAS, *others] if self.threads is None and self.precision == "float32" else others

    def open(self, runtime, path):
        return RUNTIMES[runtime].open(path, self.threads or runtimes.cores(), self.precision)


class Predictor:
    """A call from images to probabilities; see `predictor`.

    It may be called from several threads, one after another. It is closed at the end of a `with` block.

    Args:
        run: uint8 images (n, height, width, channels) to probabilities (n, classes).
        runtime: its name.
        preprocessing: a `Preprocessing`.
        labels: the name of each class.
        batch_size: images that `run` takes at once.
        rates: images per second of each runtime that was measured; empty where none was.
        failures: why each runtime that is left out was.

    Example:

    >>> predict = kp.predictor(kp.PreActResNet20(weights="cifar10"), "keras")
    >>> predict.runtime, predict.labels[int(predict("cat.png").argmax())]
    ('keras', 'cat')
    >>> predict.close()
    """

    def __init__(
        self, run: Callable, runtime: str, preprocessing: Preprocessing, labels: tuple[str, ...], batch_size: int,
        rates: dict[str, float] | None = None, failures: dict[str, str] | None = None,
    ):
        self.runtime, self.preprocessing, self.labels, self.batch_size = runtime, preprocessing, labels, batch_size
        self.rates, self.failures = rates or {}, failures or {}
        self._run: Callable | None = run
        self._lock = threading.Lock()

    def __call__(self, images: Any) -> np.ndarray:
        """Returns probabilities (n, classes), float32, the best class of which is `labels[probabilities[i].argmax()]`.

        Args:
            images: array or tensor, uint8 (n, height, width, channels) of the size in `preprocessing`, as `load_image`
                gives; or image files, paths or open, which are resized and cropped. Of files a batch at a time is in
                memory.

        Raises:
            ValueError: images of another shape or type, or a predictor that is closed.
            OSError: a file that cannot be read as an image.
        """
        if hasattr(images, "shape"):
            images = np.asarray(images)
        else:
            images = [images] if isinstance(images, (str, os.PathLike)) else list(images)
        starts = range(0, len(images), self.batch_size)
        batches = [self._probabilities(images[start:start + self.batch_size]) for start in starts]
        return np.concatenate(batches or [np.zeros((0, len(self.labels)), "float32")])

    @property
    def input_shape(self) -> tuple:
        """As of a Keras model, in Keras's image data format; what it takes has its channels last."""
        return (None, *self.preprocessing.input_shape)

    @property
    def output_shape(self) -> tuple:
        """As of a Keras model."""
        return (None, len(self.labels))

    def _probabilities(self, images):
        if not isinstance(images, np.ndarray):
            images = np.stack([load_image(file, self.preprocessing) for file in images])
        shape = (*self.preprocessing.size, len(self.preprocessing.mean))
        if images.dtype != "uint8" or images.shape[1:] != shape:
            raise ValueError(
                f"Images must be uint8 of shape (n, {', '.join(map(str, shape))}), as `load_image` gives, or image "
                f"files. Received: {images.dtype} of shape {images.shape}"
            )
        with self._lock:
            if self._run is None:
                raise ValueError("This predictor is closed: make another by keras_preact.predictor.")
            return self._run(np.ascontiguousarray(images))

    def close(self) -> None:
        """Frees what the runtime holds."""
        with self._lock:
            self._run = None

    def __enter__(self) -> "Predictor":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def __repr__(self) -> str:
        rates = ", ".join(f"{name} {rate:.3g}" for name, rate in self.rates.items())
        return f"Predictor(runtime={self.runtime!r}" + (f", images/s: {rates})" if rates else ")")


def predictor(
    model: keras.Model | str | os.PathLike,
    runtime: str = "auto",
    batch_size: int = 128,
    threads: int | None = None,
    precision: str = "float32",
    activation: str | None = None,
) -> Predictor:
    """Returns a call from images to probabilities, on the fastest runtime that is installed.

    Runtimes are Keras, on whatever backend it has, ONNX Runtime, LiteRT and OpenVINO, and with Keras on PyTorch
    `torch.export`. Each gets the network simplified, and is compared with `model`. They are measured in turn for some
    seconds, in batches of `batch_size`. What was measured of networks alike is kept on this machine, in
    keras_preact_runtimes.json beside the cache of the Hub, and not measured again.

    Args:
        model: a network that knows its preprocessing and labels; or an .onnx, .tflite, .xml or .pt2 file that
            `export` wrote, which needs its JSON file beside it and no TensorFlow.
        runtime: "auto", "keras", "onnx", "litert", "openvino" or "torch".
        batch_size: how many images are computed at once; what comes is cut into so many.
        threads: of the runtime; default as many as this process may use cores. Those of Keras and PyTorch are set
            for the process, so that with `threads` these two are left out.
        precision: "float32", or "bfloat16", which OpenVINO has on CPUs that compute in it: about twice as fast, and a
            probability differs by some hundredths at most.
        activation: what turns the outputs of a model into probabilities, as of `export`; a file has it inside.

    Returns:
        A `Predictor`.

    Raises:
        ValueError: no such file, a model without preprocessing, labels or probabilities, or what the runtime cannot do.
        ImportError: a runtime that is asked for and not installed.
        OSError: a file without the JSON file that `export` wrote beside it.

    Example:

    >>> model = kp.PreActResNet20(weights="cifar10")
    >>> with kp.predictor(model, runtime="keras") as predict:
    ...     probabilities = predict(np.zeros((5, 32, 32, 3), "uint8"))
    >>> probabilities.shape, predict.labels[3]
    ((5, 10), 'cat')
    """
    check_choice("runtime", runtime, CHOICES)
    wanted = Wanted(batch_size, threads, precision)
    wanted.check()
    path = None if isinstance(model, keras.Model) else local("model", model)
    if path:
        runtime = _of_suffix(path, runtime)
    if runtime not in (AUTO, *wanted.able):
        raise ValueError(
            f"With precision={precision!r} and threads={threads} `runtime` must be one of {', '.join(wanted.able)}. "
            f"Received: {runtime}"
        )
    if path:
        if activation is not None:
            raise ValueError(f"A file has its `activation` inside: leave it out. Received: {activation!r}")
        return _of_file(path, runtime, wanted)
    if runtime == AUTO:
        return _fastest(model, [name for name in wanted.able if _is_installed(name)], wanted, activation)
    ready = _prepared(model, runtime, activation)
    return Predictor(_opened(ready, runtime, wanted), runtime, ready.preprocessing, ready.labels, batch_size)


def _is_installed(name):
    if name == KERAS:
        return True
    try:
        runtimes.require(name, "", keras.backend.backend())
    except ImportError:
        return False
    return keras.backend.backend() in RUNTIMES[name].writers


def _prepared(model, runtime, activation):
    return preparation.prepare(model, keep_relu=None if runtime == KERAS else True, activation=activation)


def _opened(ready, runtime, wanted):
    """Returns the call of a runtime, once what it computes was compared with the model of a `Prepared`."""
    if runtime == KERAS:
        network = files.of_pixels(ready)

        def run(images):
            return np.asarray(network.predict_on_batch(images)["probabilities"], "float32")
    else:
        preparation.require_backend(tuple(RUNTIMES[runtime].writers), runtime)
        runtimes.require(runtime, f"runtime={runtime!r}", keras.backend.backend())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"model{RUNTIMES[runtime].suffix}")
            files.write(ready, path, runtime)
            run = wanted.open(runtime, path)
    images = preparation.samples(ready.shape)
    found = {"probabilities": run(images)}
    tolerance = max(ready.tolerance, preparation.MIXED_TOLERANCE.get(wanted.precision, 0))
    preparation.check(runtime, preparation.differences(found, ready.expected(images)), tolerance)
    return run


def _fastest(model, names, wanted, activation):
    file, key = _rates_file(), _key(model, names, wanted)
    rates = _known(file).get(key)
    calls, failures = {}, {}
    for name in names if not rates else [max(rates, key=rates.get)]:
        ready = _prepared(model, name, activation)
        try:
            calls[name] = _opened(ready, name, wanted)
        except Exception as error:  # of a converter, any
            failures[name] = f"{type(error).__name__}: {error}"
    if not calls:
        told = "; ".join(f"{name}: {failure}" for name, failure in failures.items())
        raise ValueError(f"No runtime can do this. {told or 'pip install keras_preact[openvino]'}")
    if not rates:
        rates = _measured(calls, np.resize(preparation.samples(ready.shape), (wanted.batch_size, *ready.shape)))
        atomic.write_text(file, json.dumps(_known(file) | {key: rates}, indent=2) + "\n")
    best = max(calls, key=rates.get)
    return Predictor(calls[best], best, ready.preprocessing, ready.labels, wanted.batch_size, rates, failures)


def _measured(calls, images):
    """Returns images per second of each call: medians of `ROUNDS` in turn."""
    rates = {name: [] for name in calls}
    for run in calls.values():
        run(images)
    for _ in range(ROUNDS):
        for name, run in calls.items():
            start, count = time.perf_counter(), 0
            while (elapsed := time.perf_counter() - start) < SECONDS:
                run(images)
                count += len(images)
            rates[name].append(count / elapsed)
    return {name: statistics.median(found) for name, found in rates.items()}


def _rates_file():
    from huggingface_hub import constants

    return Path(constants.HF_HOME, "keras_preact_runtimes.json")


def _known(file):
    """Returns the rates of each `_key`; none where there is no file or a damaged one, so that all is measured again."""
    try:
        known = json.loads(file.read_text(encoding="utf-8")).items()
        return {key: {name: float(rate) for name, rate in rates.items() if name in CHOICES} for key, rates in known}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _key(model, names, wanted):
    """Names what a rate depends on: the network, but not its weights; what is asked; packages; and the machine."""
    packages = [KERAS, keras.backend.backend(), *(RUNTIMES[name].package for name in names if name != KERAS)]
    versions = {name: importlib.import_module(name).__version__ for name in packages}
    network = (model.input_shape, model.output_shape, len(model.layers), model.count_params())
    told = repr((network, wanted, versions, platform.node(), runtimes.cores()))
    return f"{model.name} {hashlib.sha256(told.encode()).hexdigest()[:16]}"


def _of_suffix(path, runtime):
    """Returns the runtime of a file that `export` wrote, of which `runtime` is asked for."""
    own = OF_SUFFIX.get(path.suffix)
    if own is None:
        raise ValueError(
            f"`model` must be a Keras model, or a file that ends in {', '.join(OF_SUFFIX)}. Received: {path}"
        )
    if runtime not in (AUTO, own):
        raise ValueError(f"A file that ends in {path.suffix} is not for runtime={runtime!r}: leave it out.")
    return own


def _of_file(path, runtime, wanted):
    runtimes.require(runtime, f"A file that ends in {path.suffix}")
    existing("model", path)  # or each runtime tells in its own way that there is no such file
    beside = no_pipe("model", path.with_name(f"{path.name}.json"))
    try:
        told = json.loads(beside.read_text(encoding="utf-8"))
        preprocessing, labels = from_values(Preprocessing, told["preprocessing"], beside), tuple(told["labels"])
        if not all(isinstance(label, str) for label in labels):
            raise TypeError(f"{labels} are no names")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{beside} is not what keras_preact writes beside {path.name}: export it again.") from error
    run, outputs = _tried(path, runtime, wanted, (*preprocessing.size, len(preprocessing.mean)))
    if outputs != len(labels):
        raise ValueError(
            f"{beside} must name the classes of {path.name}, which has {outputs} outputs. Received: {len(labels)} "
            "labels; export it again."
        )
    return Predictor(run, runtime, preprocessing, labels, wanted.batch_size)


def _tried(path, runtime, wanted, shape):
    """Returns the call of a file, and how many probabilities it has for an image of zeros."""
    try:
        run = wanted.open(runtime, path)
        probabilities = run(np.zeros((1, *shape), "uint8"))
        _, outputs = probabilities.shape
    except (ImportError, MemoryError, runtimes.NoSuchPrecision):
        raise
    except Exception as error:  # of a runtime, any
        wanted_kind = f"a file of a network by {RUNTIMES[runtime].called}"
        raise kinds.unread(path, wanted_kind, OWN, error, "Export it again.") from error
    return run, outputs
