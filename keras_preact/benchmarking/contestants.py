"""The contestants of the benchmark: what their names mean, and their work, each in a process of its own."""
import contextlib
import dataclasses
import importlib
import importlib.util
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np

from keras_preact._support import processes
from keras_preact._support.checks import check_choice
from keras_preact._support.settings import dtype_policy
from keras_preact.benchmarking import peers
from keras_preact.data.preprocessing import Preprocessing
from keras_preact.exporting import predicting, runtimes, simplification
from keras_preact.exporting.runtimes import RUNTIMES
from keras_preact.networks.architectures import CONFIGS
from keras_preact.networks.graph import deep_enough
from keras_preact.training import engine as training, recipes
from keras_preact.zoo import builders

KERAS, TORCH = "keras.applications", "pytorchcv"
REPLICAS = 2
# Fields of `Engine`.
ENGINES = {
    "looped": {"loop": True}, "rematerialized": {"rematerialize": True}, "unrolled": {"loop": False},
    "mirrored": {"strategy": "mirrored", "replicas": REPLICAS},
}
INFERENCE, PLAIN = ("simplified", *RUNTIMES), "plain"
MOST = 2**20  # images that a runtime gets at once: as many as the batch has
# Of each work and library the endings that its networks may have; the library "" is ours.
FORMS = {
    "predict": {"": INFERENCE, KERAS: INFERENCE},
    "train": {"": (PLAIN, *ENGINES), KERAS: (PLAIN,), TORCH: ()},
}
BACKENDS = ("tensorflow", "jax", "torch")


def parsed(name, work):
    """Returns (library, network, forms, backend) of a contestant, the library "" for ours, the backend "" for any."""
    path, at, backend = name.partition("@")
    library, _, rest = path.partition(":")
    if library not in (KERAS, TORCH):
        library, rest = "", path
    network, *forms = rest.split(":")
    if library == TORCH and (work != "train" or forms or at):
        raise ValueError(
            f"Networks of {TORCH} are trained, in PyTorch and as they are: with `work` 'train' (--train), and a name "
            f"without form and backend. Received: {name!r}"
        )
    if not library:
        check_choice("name", network, tuple(CONFIGS))
    for form in forms:
        check_choice("form", form, FORMS[work][library])
    if at:
        check_choice("backend", backend, BACKENDS)
    alone = {PLAIN, *INFERENCE} & set(forms)
    if alone and len(forms) > 1 or {"looped", "unrolled"} <= set(forms):
        raise ValueError(
            f"{PLAIN!r} and {', '.join(map(repr, INFERENCE))} are forms by themselves, and nothing is looped and "
            f"unrolled. Received: {name!r}"
        )
    return library, network, forms, backend


@contextlib.contextmanager
def started(names, work, size, precision):
    """Starts the processes of the contestants, and ends them afterwards."""
    check_choice("work", work, tuple(FORMS))
    check_choice("precision", precision, tuple(peers.AUTOCAST))
    if work == "predict" and precision != "float32":
        raise ValueError(f"`precision` is of training: work='train' (--train). Received: {precision!r}")
    networks = [network for library, network, *_ in [parsed(name, work) for name in names] if not library]
    size = size or (CONFIGS[networks[0]].input_size[0] if networks else 224)
    field = [_contestant(name, work, size, precision) for name in names]
    try:
        yield field
    finally:
        for contestant in field:
            contestant.stop()


def _contestant(name, work, size, precision):
    library, network, forms, backend = parsed(name, work)
    needed = [TORCH, "torch"] if library == TORCH else [backend] if backend else []
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        return _Missing(name, missing)
    if library == TORCH:
        place = peers.__name__, "TorchTrainer", (network, size, precision)
    elif work == "train":
        place = __name__, "Trainer", (name, size, precision)
    else:
        place = __name__, "Predictor", (name, size)
    variables = {"KERAS_BACKEND": backend} if backend else {}
    if "mirrored" in forms:
        variables["TF_NUM_INTRAOP_THREADS"] = str(max(1, runtimes.cores() // REPLICAS))
    return processes.Remote(name, *place, variables)


class _Missing:
    """Stands for a contestant whose packages are not installed."""

    def __init__(self, name, packages):
        self.name = name
        self.error = f"it needs {' and '.join(packages)}, which is missing: pip install {' '.join(packages)}"

    def ask(self, *question):
        return None

    def stop(self):
        pass


class Trainer:
    """A network of ours or of keras.applications, trained on one batch in memory; see `compare`."""

    memory = staticmethod(processes.peak_memory)

    def __init__(self, name, size, precision):
        self.size, self.precision = size, precision
        self.library, self.network, self.forms, _ = parsed(name, "train")
        self.replicas = REPLICAS if "mirrored" in self.forms else 1

    def build(self):
        """Returns the seconds it took to build and compile the network, and its backend."""
        start = time.perf_counter()
        plain = self.library or PLAIN in self.forms
        with dtype_policy(self.precision):
            self.model = self._plain() if plain else self._of_the_engine()
        return {"build": time.perf_counter() - start, "backend": keras.backend.backend()}

    def _plain(self):
        source = importlib.import_module(self.library) if self.library else builders
        model = getattr(source, self.network)(
            weights=None, input_shape=(self.size, self.size, 3), classifier_activation=None
        )
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
            keras.losses.CategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    def _of_the_engine(self):
        config = CONFIGS[self.network]
        shape, labels = (self.size, self.size, 3), range(config.default_classes)
        data = SimpleNamespace(image_shape=shape, labels=labels, train_images=50_000)
        recipe = dataclasses.replace(recipes.find("cifar_paper"), nesterov=True)
        fields = {"loop": False} if self.forms else {}
        for form in self.forms:
            fields |= ENGINES[form]
        engine = training.Engine(precision=self.precision, **fields)
        devices = engine.devices()
        with deep_enough(config), devices.scope():
            return training.compiled(config, data, recipe, recipe.learning_rates(390), engine, devices.model)

    def seconds(self, batch, steps):
        """Returns how long so many training steps take."""
        if batch % self.replicas:
            raise ValueError(
                f"A batch is shared out over {self.replicas} replicas, so `batch_sizes` (--batch-size) must be "
                f"multiples of {self.replicas}. Received: {batch}"
            )
        classes = self.model.output_shape[-1]
        # What Keras gets here each replica takes whole: let it be its share.
        images, labels = peers.one_batch(batch // self.replicas, self.size, classes)
        images, targets = map(keras.ops.convert_to_tensor, (images, np.eye(classes, dtype="float32")[labels]))
        with dtype_policy(self.precision):
            start = time.perf_counter()
            for _ in range(steps):
                self.model.train_on_batch(images, targets)
            return time.perf_counter() - start


class Predictor:
    """A network of ours or of keras.applications that predicts; see `compare`."""

    memory = staticmethod(processes.peak_memory)

    def __init__(self, name, size):
        self.size, self.random = size, np.random.default_rng(0)
        self.library, self.network, forms, _ = parsed(name, "predict")
        self.form = forms[0] if forms else ""

    def build(self):
        """Returns the seconds it took to build the network, to load weights and to predict once, and its backend."""
        source = importlib.import_module(self.library) if self.library else builders
        times = [time.perf_counter()]
        self.model = getattr(source, self.network)(weights=None, input_shape=(self.size, self.size, 3))
        times.append(time.perf_counter())
        # Fresh networks have offsets of zero, for which a simplified one has no biases.
        for layer in self.model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.set_weights([self.random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
        # They make logits of hundreds, whose softmax no two runtimes round alike.
        self.model.layers[-1].set_weights([weight / 100 for weight in self.model.layers[-1].get_weights()])
        with tempfile.TemporaryDirectory() as folder:
            self.model.save_weights(Path(folder, "model.weights.h5"))
            start = time.perf_counter()
            self.model.load_weights(Path(folder, "model.weights.h5"))
            load = time.perf_counter() - start
        self.run = self._run_keras
        times.append(time.perf_counter())
        if self.form == "simplified":
            self.model = simplification.simplify_for_inference(self.model)
        elif self.form:
            self.run = self._on_runtime(self.form)
        times.append(time.perf_counter())
        build = times[1] - times[0] + times[3] - times[2]
        backend = keras.backend.backend()
        return {"build": build, "load": load, "first_call": self.seconds(1, 1), "backend": backend}

    def _images(self, count):
        shape = (count, self.size, self.size, 3)
        if self.form in RUNTIMES:  # which normalize images themselves
            return self.random.integers(0, 256, shape, "uint8")
        return self.random.normal(size=shape).astype("float32")

    def _on_runtime(self, runtime):
        self.model.preprocessing = Preprocessing((0.5,) * 3, (0.25,) * 3, (self.size, self.size))
        self.model.labels = tuple(map(str, range(self.model.output_shape[-1])))
        predict = predicting.predictor(self.model, runtime, batch_size=MOST)

        def run(images, batch):
            for start in range(0, len(images), batch):
                predict(images[start:start + batch])

        return run

    def _run_keras(self, images, batch):
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # On arrays `predict` may wait, at the end, for the thread that tunes tf.data, up to as long as it took.
            options = tf.data.Options()
            options.autotune.enabled = False
            images, batch = tf.data.Dataset.from_tensor_slices(images).batch(batch).with_options(options), None
        self.model.predict(images, batch_size=batch, verbose=0)

    def seconds(self, batch, count):
        """Returns how long so many batches take."""
        images = self._images(batch * count)
        start = time.perf_counter()
        self.run(images, batch)
        return time.perf_counter() - start
