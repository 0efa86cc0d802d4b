"""Networks against each other: time and memory, each in a process of its own, measured in turn."""
import dataclasses
import importlib
import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from keras_preact._support.checks import check_choice
from keras_preact._support.drawing import drawing
from keras_preact.exporting import runtimes
from keras_preact.networks.architectures import CONFIGS

PEERS = "keras.applications"
INFERENCE_FORMS = ("simplified", "onnxruntime")
FORMS = {"looped": {"loop": True}, "rematerialized": {"rematerialize": True}, "unrolled": {"loop": False}}


@dataclasses.dataclass
class Measurement:
    """What one contestant took.

    Args:
        name: of the contestant.
        build: seconds to build it, Keras imported before, and to simplify or export it.
        load: seconds to read its weights from a file.
        first_call: seconds of the first prediction, of one image.
        speeds: {"predict" or "train": {batch size: images per second in each round}}.
        memory: peak of its process in bytes.
    """

    name: str
    build: float
    load: float
    first_call: float
    speeds: dict
    memory: int = 0

    def ratios(self, other, work, batch):
        """Returns how many times the speed of `other` it had, in each round."""
        pairs = zip(self.speeds[work][batch], other.speeds[work][batch], strict=True)
        return [mine / theirs for mine, theirs in pairs]


def compare(names, batch_sizes=(1, 32), works=("predict",), rounds=5, seconds=1.0, size=None, progress=print):
    """Returns a `Measurement` of each contestant. They are measured in turn, each in a process of its own.

    Args:
        names: of builders, and networks of Keras as "keras.applications:ResNet50V2"; all with random weights, also in
            their batch normalizations. The ending ":simplified" stands for `simplify_for_inference` of the network,
            ":onnxruntime" for that in ONNX Runtime on the CPU.
        batch_sizes: images at a time.
        works: "predict", by `predict` with that batch size, and "train", by `train_on_batch` with SGD.
        rounds: measurements of each, in turn.
        seconds: how long one of them takes at least.
        size: of the square images in pixels; default that of the first network.
        progress: is called with a text that tells what is measured now.

    Raises:
        ValueError: an unknown name or work.
        RuntimeError: a contestant failed; with its own message.
    """
    bases = [_parsed(name, INFERENCE_FORMS)[0] for name in names]
    for work in works:
        check_choice("work", work, ("predict", "train"))
    ours = [CONFIGS[base] for base in bases if base in CONFIGS]
    size = size or (ours[0].input_size[0] if ours else 224)
    contestants = [_Contestant(name, size) for name in names]
    try:
        found = []
        for contestant in contestants:
            progress(f"{contestant.name}: build")
            found.append(Measurement(contestant.name, *contestant.ask("build"), {work: {} for work in works}))
        for work in works:
            for batch in batch_sizes:
                # As many batches for all as take the fastest that long; the first call of a size compiles.
                fastest = min(c.ask(work, batch, 1) and c.ask(work, batch, 1) for c in contestants)
                count = max(1, round(seconds / fastest))
                for i in range(rounds):
                    for contestant, measurement in zip(contestants, found):
                        progress(f"{contestant.name}: {work}, batch {batch}, round {i + 1} of {rounds}")
                        speed = count * batch / contestant.ask(work, batch, count)
                        measurement.speeds[work].setdefault(batch, []).append(speed)
        for contestant, measurement in zip(contestants, found):
            measurement.memory = contestant.ask("memory")
        return found
    finally:
        for contestant in contestants:
            contestant.stop()


@dataclasses.dataclass
class FirstStep:
    """What it took until a network was training.

    Args:
        name: of the contestant.
        batch: images in a step.
        build: seconds to build and compile it, Keras imported before.
        first_step: seconds from there to the end of the first training step.
        step: seconds of the fastest of the three steps after it.
        memory: peak of its process in bytes.
    """

    name: str
    batch: int
    build: float
    first_step: float
    step: float
    memory: int


def first_steps(names, batch=16, size=None, progress=print):
    """Returns a `FirstStep` of each contestant, one after the other, each in a fresh process.

    Args:
        names: of builders, trained as plain Keras models; with the endings ":looped", ":rematerialized", both of them,
            or ":unrolled" they are trained by the engine in that form.
        batch: images in a step.
        size: of the square images in pixels; default that of each network.
        progress: is called with a text that tells what is measured now.

    Raises:
        ValueError: an unknown name.
        RuntimeError: a contestant failed; with its own message.
    """
    builders = [_parsed(name, FORMS)[0] for name in names]
    for builder in builders:
        check_choice("name", builder, tuple(CONFIGS))
    found = []
    for name, builder in zip(names, builders):
        progress(f"{name}: first training steps")
        contestant = _Contestant(name, size or CONFIGS[builder].input_size[0])
        try:
            found.append(FirstStep(name, batch, *contestant.ask("start_training", batch), contestant.ask("memory")))
        finally:
            contestant.stop()
    return found


def _parsed(name, choices):
    """Returns (name of a builder or of a network of `keras.applications`, forms) of a contestant."""
    base, *forms = name.removeprefix(f"{PEERS}:").split(":")
    if not name.startswith(f"{PEERS}:"):
        check_choice("name", base, tuple(CONFIGS))
    for form in forms:
        check_choice("form", form, tuple(choices))
    return base, forms


class _Contestant:
    """A process that holds one network and does what it is asked."""

    def __init__(self, name, size):
        context = multiprocessing.get_context("spawn")
        self.name, (self.pipe, other) = name, context.Pipe()
        self.process = context.Process(target=_serve, args=(other, name, size), daemon=True)
        self.process.start()

    def ask(self, *question):
        self.pipe.send(question)
        try:
            kind, answer = self.pipe.recv()
        except EOFError:
            self.process.join()
            kind, answer = "failed", f"its process ended with exit code {self.process.exitcode}"
        if kind == "failed":
            raise RuntimeError(f"{self.name}: {answer}")
        return answer

    def stop(self):
        self.process.terminate()
        self.process.join()


def _serve(pipe, name, size):
    worker = _Worker(name, size)
    while True:
        what, *arguments = pipe.recv()
        try:
            pipe.send(("done", getattr(worker, what)(*arguments)))
        except Exception as error:
            pipe.send(("failed", f"{type(error).__name__}: {error}"))


class _Worker:
    def __init__(self, name, size):
        self.name, self.size = name, size

    def build(self):
        import keras

        import keras_preact

        base, forms = _parsed(self.name, INFERENCE_FORMS)
        source = importlib.import_module(PEERS) if self.name.startswith(PEERS) else keras_preact
        times = [time.perf_counter()]
        self.model = getattr(source, base)(weights=None, input_shape=(self.size, self.size, 3))
        times.append(time.perf_counter())
        self.random = np.random.default_rng(0)
        # Fresh networks have offsets of zero, for which a simplified one has no biases.
        for layer in self.model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.set_weights([self.random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
        with tempfile.TemporaryDirectory() as folder:
            self.model.save_weights(Path(folder, "model.weights.h5"))
            start = time.perf_counter()
            self.model.load_weights(Path(folder, "model.weights.h5"))
            load = time.perf_counter() - start
        self.run = self._run_keras
        times.append(time.perf_counter())
        if forms:
            self.model = keras_preact.simplify_for_inference(self.model, keep_relu="onnxruntime" in forms or None)
        if "onnxruntime" in forms:
            self.run = self._onnxruntime()
        times.append(time.perf_counter())
        self.model.compile(keras.optimizers.SGD(0.01, 0.9), "sparse_categorical_crossentropy", jit_compile=False)
        return times[1] - times[0] + times[3] - times[2], load, self.predict(1, 1)

    def _images(self, count):
        return self.random.normal(size=(count, self.size, self.size, 3)).astype("float32")

    def _onnxruntime(self):
        runtimes.require("onnx")
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model(self._images(1))  # Keras exports to ONNX what was called before
            self.model.export(f"{folder}/model.onnx", format="onnx", verbose=False)
            session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
        (images,) = session.get_inputs()
        return lambda x, batch: [session.run(None, {images.name: x[i:i + batch]}) for i in range(0, len(x), batch)]

    def _run_keras(self, images, batch):
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # On arrays `predict` may wait, at the end, for the thread that tunes tf.data, up to as long as it took.
            options = tf.data.Options()
            options.autotune.enabled = False
            images, batch = tf.data.Dataset.from_tensor_slices(images).batch(batch).with_options(options), None
        self.model.predict(images, batch_size=batch, verbose=0)

    def predict(self, batch, count):
        images = self._images(batch * count)
        start = time.perf_counter()
        self.run(images, batch)
        return time.perf_counter() - start

    def train(self, batch, count):
        images, labels = self._images(batch), self.random.integers(0, 10, batch)
        start = time.perf_counter()
        for _ in range(count):
            self.model.train_on_batch(images, labels)
        return time.perf_counter() - start

    def start_training(self, batch):
        import keras

        from keras_preact.networks.graph import deep_enough
        from keras_preact.training import recipes
        from keras_preact.training.engine import Engine, compiled
        from keras_preact.zoo import builders

        builder, forms = _parsed(self.name, FORMS)
        shape, times = (self.size, self.size, 3), [time.perf_counter()]
        classes = CONFIGS[builder].default_classes
        if forms:
            engine = {"loop": False} | {field: value for form in forms for field, value in FORMS[form].items()}
            data, recipe = SimpleNamespace(image_shape=shape, labels=range(classes)), recipes.find("cifar_paper")
            with deep_enough(CONFIGS[builder]):
                self.model = compiled(CONFIGS[builder], data, recipe, 0.1, Engine(**engine))
        else:
            self.model = getattr(builders, builder)(weights=None, input_shape=shape, classifier_activation=None)
            self.model.compile(
                keras.optimizers.SGD(0.1, 0.9), keras.losses.CategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"], jit_compile=keras.backend.backend() == "jax",
            )
        times.append(time.perf_counter())
        images, targets = np.zeros((batch, *shape), "float32"), np.eye(classes, dtype="float32")[np.zeros(batch, int)]
        for _ in range(4):
            self.model.train_on_batch(images, targets)
            times.append(time.perf_counter())
        build, first, *others = (after - before for before, after in zip(times, times[1:]))
        return build, first, min(others)

    def memory(self):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def summary(found):
    """Returns (contestant, work, batch, images/s, ratio to the speed of the first contestant) as texts."""
    lines = []
    for work, of_batch in found[0].speeds.items():
        for batch in of_batch:
            for measurement in found:
                ratios = measurement.ratios(found[0], work, batch)
                lines.append((
                    measurement.name, work, str(batch), f"{statistics.median(measurement.speeds[work][batch]):.1f}",
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                ))
    return lines


def plot(found, path):
    """Draws the ratios to the first contestant, median and range, as a PNG."""
    cases = [(work, batch) for work, of_batch in found[0].speeds.items() for batch in of_batch]
    with drawing(path, figsize=(8, 1 + 0.4 * len(cases) * len(found))) as axes:
        for i, measurement in enumerate(found):
            ratios = [measurement.ratios(found[0], *case) for case in cases]
            middle = [statistics.median(r) for r in ratios]
            spread = [[m - min(r) for m, r in zip(middle, ratios)], [max(r) - m for m, r in zip(middle, ratios)]]
            places = [j + 0.8 * i / len(found) for j in range(len(cases))]
            axes.barh(places, middle, 0.8 / len(found), xerr=spread, label=measurement.name)
        axes.set_yticks([j + 0.4 for j in range(len(cases))], [f"{work}, batch {batch}" for work, batch in cases])
        axes.axvline(1, color="black", linewidth=0.5)
        axes.set(xlabel=f"images per second over those of {found[0].name}")
        axes.legend()


def plot_memory(found, path):
    """Draws the peak memory of each `FirstStep` against the depth, a line for each form and batch, as a PNG."""
    lines = {}
    for measured in found:
        builder, forms = _parsed(measured.name, FORMS)
        label = f"{' and '.join(forms) or 'plain Keras'}, batch {measured.batch}"
        lines.setdefault(label, []).append((CONFIGS[builder].depth, measured.memory / 1e9))
    with drawing(path, figsize=(7, 4.5)) as axes:
        for label, points in lines.items():
            axes.plot(*zip(*sorted(points)), marker="o", label=label)
        depths = sorted({depth for points in lines.values() for depth, _ in points})
        depth, least = min(min(points) for points in lines.values())
        axes.plot(
            depths, [least * (d / depth) ** 0.5 for d in depths], color="grey", linestyle=":",
            label="the square root of the depth",
        )
        axes.set(xlabel="layers", ylabel="peak memory of the process (GB)", ylim=(0, None))
        axes.legend()
