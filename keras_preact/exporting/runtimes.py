"""Formats of one file each, for other runtimes than TensorFlow: ONNX, LiteRT and OpenVINO."""
import importlib.util
import json
import warnings

import keras
import numpy as np

from keras_preact._support import atomic
from keras_preact._support.paths import local
from keras_preact.exporting import preparation

# What the file of each format ends in, how Keras calls it, and the packages that write and run it.
FILES = {
    "onnx": (".onnx", "onnx", ("tf2onnx", "onnxruntime")),
    "litert": (".tflite", "litert", ("ai_edge_litert",)),
    "litert_int8": (".tflite", "litert", ("ai_edge_litert",)),
    "openvino": (".xml", "openvino", ("openvino",)),
}


def export_file(
    model, path, format, preprocessing=None, labels=None, calibration=None, overwrite=False, activation=None
):
    """Writes a network as a file of one of `FILES`, with a JSON file beside; arguments and errors as of `export`."""
    suffix, name = require(format)
    target = local("path", path)
    if target.suffix != suffix:
        raise ValueError(f"`path` of format={format!r} must end in {suffix}. Received: {path}")
    preparation.check_free(target, overwrite)
    ready = preparation.prepare(model, preprocessing, labels, keep_relu=True, activation=activation)
    if ready.tolerance != preparation.TOLERANCE:
        raise ValueError(
            f"format={format!r} is of networks in float32: build {model.name} with "
            f"keras.config.set_dtype_policy('float32') and the same weights. Received: {model.dtype_policy.name}"
        )
    images, options = preparation.samples((*ready.preprocessing.size, len(ready.preprocessing.mean))), {}
    if format == "litert_int8":
        images = _checked_calibration(calibration, images.shape)
        options = _int8(images)
    with atomic.staged(target.parent) as staged:
        new = staged / target.name
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)  # Keras's patch of tf2onnx
            _of_pixels(ready).export(str(new), format=name, verbose=False, **options)
        expected = ready.expected(images)
        found = np.concatenate([RUNTIMES[name](new, batch) for batch in np.array_split(images, -(-len(images) // 32))])
        exported = preparation.Exported(
            format, target, preparation.size_of(staged), *preparation.differences({"probabilities": found}, expected)
        )
        preparation.check(exported, 1 if format == "litert_int8" else ready.tolerance)
        new.with_name(f"{new.name}.json").write_text(json.dumps(ready.metadata, indent=2) + "\n", encoding="utf-8")
        files = sorted(staged.iterdir(), key=lambda file: file == new)  # the one that was asked for comes last
        for file in files:
            preparation.check_free(target.with_name(file.name), overwrite)
        for file in files:
            file.replace(target.with_name(file.name))
    return exported


def require(format):
    """Returns how files of `format` end and what Keras calls it, or raises ImportError where a package is missing."""
    suffix, name, packages = FILES[format]
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(
            f"format={format!r} needs {' and '.join(missing)}, which is missing: pip install 'keras_preact[{name}]'"
        )
    return suffix, name


def _of_pixels(ready):
    """Returns a model from uint8 images to probabilities."""
    mean, std = (np.array(values) for values in (ready.preprocessing.mean, ready.preprocessing.std))
    images = keras.Input((*ready.preprocessing.size, len(mean)), dtype="uint8", name="images")
    x = keras.layers.Rescaling((1 / (255 * std)).tolist(), (-mean / std).tolist())(images)
    if keras.config.image_data_format() == "channels_first":
        x = keras.layers.Permute((3, 1, 2))(x)
    model = keras.Model(images, ready.network(x)["probabilities"], name=ready.model.name)
    model(np.zeros((1, *images.shape[1:]), "uint8"))  # Keras exports to ONNX what was called before
    return model


def _checked_calibration(images, shape):
    if images is None:
        raise ValueError("format='litert_int8' needs `calibration`: some hundred uint8 images, as `load_image` gives.")
    images = np.asarray(images)
    if images.dtype != "uint8" or images.shape[1:] != shape[1:] or not len(images):
        raise ValueError(
            f"`calibration` must be uint8 images of shape (n, {', '.join(map(str, shape[1:]))}), as `load_image` "
            f"gives. Received: {images.dtype} of shape {images.shape}"
        )
    return images


def _int8(images):
    """Returns the options of the converter for weights and activations of eight bits."""
    import tensorflow as tf

    return {
        "optimizations": [tf.lite.Optimize.DEFAULT],
        "representative_dataset": lambda: ([image[None]] for image in images),
        "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
    }


def _run_onnx(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def _run_litert(path, images):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(wanted["index"])


def _run_openvino(path, images):
    import openvino

    # By itself it takes bfloat16 where the CPU has it.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(path, "CPU", options)(images)[0]


RUNTIMES = {"onnx": _run_onnx, "litert": _run_litert, "openvino": _run_openvino}
