"""Exports a network with its weights to each runtime; measures its error on the test images, and its speed, in turn.

    pip install ".[onnx,litert,openvino]"
    python examples/benchmark_exports.py --data cifar10

Speeds are ratios to the first runtime, of the median of the rounds, with the range over them.
"""
import argparse
import statistics
import tempfile
import time

import numpy as np
import onnxruntime
import openvino
from ai_edge_litert.interpreter import Interpreter

import keras_preact as kp
from keras_preact.data import datasets

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="PreActResNet20")
parser.add_argument("--weights", default="cifar10")
parser.add_argument("--data", default="cifar10", help="TensorFlow data set or .npz file of the images of one size")
parser.add_argument("--batch-size", type=int, default=100, help="which divides the test images")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=5)
options = parser.parse_args()


def onnx(path):
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(path, session, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def litert(path):
    interpreter = Interpreter(path, num_threads=options.threads)
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], (options.batch_size, *given["shape"][1:]))
    interpreter.allocate_tensors()

    def run(images):
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(wanted["index"])

    return run


def of_openvino(precision):
    def load(path):
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": options.threads}
        request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
        return lambda images: request.infer(images)[0].copy()

    return load


RUNTIMES = {
    "ONNX Runtime": ("onnx", ".onnx", onnx),
    "LiteRT": ("litert", ".tflite", litert),
    "LiteRT, int8": ("litert_int8", ".tflite", litert),
    "OpenVINO": ("openvino", ".xml", of_openvino("f32")),
    "OpenVINO, bfloat16": ("openvino", ".xml", of_openvino("bf16")),
}

data = datasets.load(options.data)
model = getattr(kp, options.model)(weights=options.weights)
calibration = data.x_train[::len(data.x_train) // 200]
batches = data.x_test.reshape(-1, options.batch_size, *data.image_shape)
ready = {}
with tempfile.TemporaryDirectory() as folder:
    for name, (format, suffix, load) in RUNTIMES.items():
        path = f"{folder}/{len(ready)}{suffix}"
        kp.export(model, path, format, calibration=calibration if format == "litert_int8" else None)
        ready[name] = load(path)
errors = {
    name: 100 * np.mean(np.concatenate([run(batch) for batch in batches]).argmax(1) != data.y_test)
    for name, run in ready.items()
}
seconds = {name: [] for name in ready}
for _ in range(options.rounds):
    for name, run in ready.items():
        run(batches[0])
        start = time.perf_counter()
        for batch in batches[:20]:
            run(batch)
        seconds[name].append(time.perf_counter() - start)
first = next(iter(seconds.values()))
for name, times in seconds.items():
    ratios = sorted(theirs / ours for theirs, ours in zip(first, times))
    print(
        f"{name:20} error {errors[name]:.2f} %   {statistics.median(ratios):.2f} times as fast "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
