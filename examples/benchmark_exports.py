"""Exports a network with its weights to each runtime; measures its error on the test images, and its speed, in turn.

    pip install ".[onnx,litert,openvino]"
    python examples/benchmark_exports.py --data cifar10

Speeds are ratios to the first runtime, of the median of the rounds, with the range over them.
"""
import argparse
import statistics
import tempfile
import time

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

FILES = {
    "ONNX Runtime": ("onnx", ".onnx", "float32"),
    "LiteRT": ("litert", ".tflite", "float32"),
    "LiteRT, int8": ("litert_int8", ".tflite", "float32"),
    "OpenVINO": ("openvino", ".xml", "float32"),
    "OpenVINO, bfloat16": ("openvino", ".xml", "bfloat16"),
}

data = datasets.load(options.data)
model = getattr(kp, options.model)(weights=options.weights)
calibration = data.x_train[::len(data.x_train) // 200]
batches = data.x_test.reshape(-1, options.batch_size, *data.image_shape)
ready = {}
with tempfile.TemporaryDirectory() as folder:
    for name, (format, suffix, precision) in FILES.items():
        path = f"{folder}/{len(ready)}{suffix}"
        kp.export(model, path, format, calibration=calibration if format == "litert_int8" else None)
        ready[name] = kp.predictor(path, batch_size=options.batch_size, threads=options.threads, precision=precision)
errors = {name: kp.evaluate(run, data, verbose=0).top1_error for name, run in ready.items()}
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
