"""Networks against each other: time and memory, each in a process of its own, measured in turn."""
import dataclasses
import statistics

from keras_preact._support.drawing import drawing
from keras_preact.benchmarking import contestants
from keras_preact.networks.architectures import CONFIGS


@dataclasses.dataclass
class Measurement:
    """What one contestant took; None is what was not measured.

    Args:
        name: of the contestant.
        backend: of Keras, or "torch".
        build: seconds to build it, Keras imported before, and to simplify, export or compile it.
        load: seconds to read its weights from a file.
        first_call: seconds of the first prediction, of one image.
        speeds: {batch size: images per second in each round}.
        memory: peak of its process in bytes.
        error: why it failed, in one line; empty if it did not.
    """

    name: str
    backend: str | None = None
    build: float | None = None
    load: float | None = None
    first_call: float | None = None
    speeds: dict = dataclasses.field(default_factory=dict)
    memory: int | None = None
    error: str = ""

    def ratios(self, other, batch):
        """Returns how many times the speed of `other` it had, in each round."""
        return [mine / theirs for mine, theirs in zip(self.speeds[batch], other.speeds[batch], strict=True)]


def compare(
    names, batch_sizes=(1, 32), work="predict", rounds=5, seconds=1.0, size=None, precision="float32", progress=print
):
    """Returns a `Measurement` of each contestant. They are measured in turn, each in a process of its own.

    Args:
        names: of builders, and networks of others as "keras.applications:ResNet50V2" and, to train,
            "pytorchcv:preresnet20_cifar10"; all with random weights. Of what predicts, the ending ":simplified" stands
            for `simplify_for_inference` of the network; ":onnx", ":litert" or ":openvino" for a `predictor` on that. A
            builder is trained as the engine does by default, or with the endings ":looped", ":unrolled",
            ":rematerialized" and, on two replicas, ":mirrored", also together, in that form; ":plain" stands for plain
            Keras with its SGD, which keras.applications are anyway. Networks of pytorchcv are trained by
            `peers.TorchTrainer`. "@tensorflow", "@jax" or "@torch" at the end asks for that backend of Keras.
        batch_sizes: images at a time.
        work: "predict", by `predict` with that batch size, or "train", by `train_on_batch` on one batch in memory: SGD
            with Nesterov momentum and weight decay.
        rounds: measurements of each, in turn.
        seconds: how long one of them takes at least.
        size: of the square images in pixels; default that of our first network.
        precision: of what is trained, Keras's dtype policy: "float32", "mixed_bfloat16" or "mixed_float16".
        progress: is called with a text that tells what is measured now.

    A contestant that fails has an `error`, and the others are measured nevertheless.

    Raises:
        ValueError: an unknown name, form, backend, work or precision.
    """
    with contestants.started(names, work, size, precision) as field:
        found = []
        for contestant in field:
            progress(f"{contestant.name}: build")
            found.append(Measurement(contestant.name, **(contestant.ask("build") or {})))
        for batch in batch_sizes:
            took = []
            for contestant in field:
                progress(f"{contestant.name}: {work}, batch {batch}, warm-up")
                took += [contestant.ask("seconds", batch, 1) for _ in range(3)]  # the first call of a size compiles
            # As many batches for all as take the fastest that long.
            count = max(1, round(seconds / min(filter(None, took), default=seconds)))
            for i in range(rounds):
                for contestant, measurement in zip(field, found):
                    progress(f"{contestant.name}: {work}, batch {batch}, round {i + 1} of {rounds}")
                    took = contestant.ask("seconds", batch, count)
                    measurement.speeds.setdefault(batch, []).append(took and count * batch / took)
        for contestant, measurement in zip(field, found):
            measurement.speeds = {batch: rates for batch, rates in measurement.speeds.items() if None not in rates}
            measurement.memory, measurement.error = contestant.ask("memory"), contestant.error
        return found


@dataclasses.dataclass
class FirstStep:
    """What it took until a network was training; None is what was not measured.

    Args:
        name: of the contestant.
        batch: images in a step.
        build: seconds to build and compile it, Keras imported before.
        first_step: seconds from there to the end of the first training step.
        step: seconds of the fastest of the three steps after it.
        memory: peak of its process in bytes.
        error: why it failed, in one line; empty if it did not.
    """

    name: str
    batch: int
    build: float | None = None
    first_step: float | None = None
    step: float | None = None
    memory: int | None = None
    error: str = ""


def first_steps(names, batch=16, size=None, precision="float32", progress=print):
    """Returns a `FirstStep` of each contestant, one after the other, each in a fresh process.

    Args:
        names: of contestants, as `compare` takes them to train.
        batch: images in a step.
        size: of the square images in pixels; default that of each network.
        precision: Keras's dtype policy: "float32", "mixed_bfloat16" or "mixed_float16".
        progress: is called with a text that tells what is measured now.

    A contestant that fails has an `error`, and the others are measured nevertheless.

    Raises:
        ValueError: an unknown name, form, backend or precision.
    """
    for name in names:
        contestants.parsed(name, "train")
    found = []
    for name in names:
        progress(f"{name}: first training steps")
        with contestants.started([name], "train", size, precision) as (contestant,):
            step = FirstStep(name, batch, build=(contestant.ask("build") or {}).get("build"))
            step.first_step, *others = (contestant.ask("seconds", batch, 1) for _ in range(4))
            step.memory, step.error = contestant.ask("memory"), contestant.error
            step.step = None if step.error else min(others)
            found.append(step)
    return found


def summary(found):
    """Returns (contestant, batch, images/s, ratio to the speed of the first contestant) as texts."""
    lines = []
    for batch in {batch: None for measurement in found for batch in measurement.speeds}:
        for measurement in found:
            if batch in measurement.speeds:
                speed = f"{statistics.median(measurement.speeds[batch]):.1f}"
                ratio = "-"
                if batch in found[0].speeds:
                    ratios = measurement.ratios(found[0], batch)
                    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                lines.append((measurement.name, str(batch), speed, ratio))
    return lines


def summary_of_first_steps(found):
    """Returns (contestant, batch, build, first step, both over the first contestant's, step, memory) as texts."""
    lines, first = [], {}
    for measured in (m for m in found if not m.error):
        until = measured.build + measured.first_step
        first.setdefault(measured.batch, until if measured.name == found[0].name else None)
        of_first = first[measured.batch]
        ratio = f"{until / of_first:.2f}" if of_first else "-"
        values = measured.build, measured.first_step, ratio, measured.step, measured.memory / 1e9
        lines.append((measured.name, str(measured.batch), *(v if v is ratio else f"{v:.2f}" for v in values)))
    return lines


def plot(found, path):
    """Draws the ratios to the first contestant, median and range, as a PNG."""
    first, *_ = found
    batches = list(first.speeds)
    with drawing(path, figsize=(8, 1 + 0.4 * len(batches) * len(found))) as axes:
        for i, measurement in enumerate(found):
            ratios = {j: measurement.ratios(first, b) for j, b in enumerate(batches) if b in measurement.speeds}
            middle = [statistics.median(r) for r in ratios.values()]
            spread = [
                [m - min(r) for m, r in zip(middle, ratios.values())],
                [max(r) - m for m, r in zip(middle, ratios.values())],
            ]
            places = [j + 0.8 * i / len(found) for j in ratios]
            axes.barh(places, middle, 0.8 / len(found), xerr=spread, label=measurement.name)
        axes.set_yticks([j + 0.4 for j in range(len(batches))], [f"batch {batch}" for batch in batches])
        axes.axvline(1, color="black", linewidth=0.5)
        axes.set(xlabel=f"images per second over those of {first.name}")
        axes.legend()


def plot_memory(found, path):
    """Draws the peak memory of each `FirstStep` of our networks over the depth, a line for each form, as a PNG."""
    lines = {}
    for measured in found:
        library, network, forms, backend = contestants.parsed(measured.name, "train")
        if not (library or measured.error):
            form = " and ".join(forms) or "as the engine trains"
            label = ", ".join(filter(None, (form, backend, f"batch {measured.batch}")))
            lines.setdefault(label, []).append((CONFIGS[network].depth, measured.memory / 1e9))
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
