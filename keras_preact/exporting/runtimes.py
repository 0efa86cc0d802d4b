"""Runtimes of exported files: each opens one as a call from uint8 images to probabilities."""
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}  # and what OpenVINO calls them


class NoSuchPrecision(ValueError):
    """The machine does not compute so."""


class Runtime(NamedTuple):
    """What is known of a runtime.

    Args:
        called: what it is called in errors.
        suffix: what its files end in.
        writers: the backends of Keras that write its files, each with the packages that it takes.
        package: the one that runs them.
        open: (path, threads, precision) to a call from uint8 images (n, height, width, channels) to probabilities
            (n, classes) as float32. Once it is open the file may be removed.
        precisions: in which it computes.
        has_threads: whether the number of threads is its own; PyTorch's is that of the process.
    """

    called: str
    suffix: str
    writers: dict[str, tuple[str, ...]]
    package: str
    open: Callable
    precisions: tuple[str, ...] = ("float32",)
    has_threads: bool = True


def require(name, purpose, backend=None):
    """Raises ImportError where a package of the runtime `name` is missing, which `purpose` needs.

    Args:
        name: of `RUNTIMES`.
        purpose: what needs it, for the message.
        backend: of Keras, which is to write a file; default none, as files are read alone.
    """
    runtime = RUNTIMES[name]
    packages = *runtime.writers.get(backend, ()), runtime.package
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        extra = name if backend in (None, name, "tensorflow") else f"{name}-{backend}"
        raise ImportError(
            f"{purpose} needs {' and '.join(missing)}, which is missing: pip install 'keras_preact[{extra}]'"
        )


def cores():
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _onnx(path, threads, precision):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def _litert(path, threads, precision):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=Path(path).read_bytes(), num_threads=threads)
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
    shape = None

    def run(images):
        nonlocal shape
        if images.shape != shape:
            interpreter.resize_tensor_input(given["index"], images.shape)
            interpreter.allocate_tensors()
            shape = images.shape
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(wanted["index"])

    return run


def _openvino(path, threads, precision):
    import openvino

    core = openvino.Core()
    if precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise NoSuchPrecision("precision='bfloat16' is for CPUs with AVX512_BF16 or AMX, and this one has neither.")
    # By itself it takes bfloat16 where the CPU has it.
    options = {"INFERENCE_PRECISION_HINT": PRECISIONS[precision], "INFERENCE_NUM_THREADS": threads}
    options["ENABLE_MMAP"] = False  # or the file would have to stay
    request = core.compile_model(path, "CPU", options).create_infer_request()
    return lambda images: request.infer(images)[0].copy()


def _torch(path, threads, precision):
    import torch

    program = torch.export.load(path).module()

    def run(images):
        with torch.no_grad():
            return program(torch.tensor(images))["probabilities"].numpy()

    return run


RUNTIMES = {
    "onnx": Runtime(
        "ONNX Runtime", ".onnx", {"tensorflow": ("tf2onnx",), "torch": ("onnxscript",)}, "onnxruntime", _onnx
    ),
    "litert": Runtime("LiteRT", ".tflite", {"tensorflow": ()}, "ai_edge_litert", _litert),
    "openvino": Runtime("OpenVINO", ".xml", {"tensorflow": ()}, "openvino", _openvino, tuple(PRECISIONS)),
    "torch": Runtime("PyTorch", ".pt2", {"torch": ()}, "torch", _torch, has_threads=False),
}
OF_SUFFIX = {runtime.suffix: name for name, runtime in RUNTIMES.items()}
AUTO, KERAS = "auto", "keras"
CHOICES = (AUTO, KERAS, *RUNTIMES)
