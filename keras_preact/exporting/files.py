"""Formats of one file each, for other runtimes than TensorFlow: ONNX, LiteRT, OpenVINO and PyTorch."""
import importlib
import json
import warnings

import keras
import numpy as np

from keras_preact._support import atomic
from keras_preact.data.preprocessing import layer
from keras_preact.exporting import preparation, runtimes
from keras_preact.exporting.runtimes import RUNTIMES
from keras_preact.version import __version__

# The runtime of each format.
FORMATS = {"onnx": "onnx", "litert": "litert", "litert_int8": "litert", "openvino": "openvino", "torch": "torch"}
OPSET = 18  # of ONNX, which PyTorch writes, too
BATCH = 32  # images that are compared at once


def export_file(
    model, path, format, preprocessing=None, labels=None, calibration=None, overwrite=False, activation=None
):
    """Writes a network as a file of one of `FORMATS`, with a JSON file beside; arguments and errors as of `export`."""
    name = FORMATS[format]
    preparation.require_backend(RUNTIMES[name].backend, format)
    runtimes.require(name, f"format={format!r}")
    target, suffix = preparation.target_of(path), RUNTIMES[name].suffix
    if target.suffix != suffix:
        raise ValueError(f"`path` of format={format!r} must end in {suffix}. Received: {path}")
    preparation.check_free(target, overwrite)
    ready = preparation.prepare(model, preprocessing, labels, keep_relu=True, activation=activation)
    images = preparation.samples(ready.shape)
    if format == "litert_int8":
        images = _checked_calibration(calibration, images.shape)
    expected = ready.expected(images)  # before the long work: values may be no numbers
    with atomic.staged(target.parent) as staged:
        new = staged / target.name
        metadata = write(ready, new, format, images)
        run = RUNTIMES[name].open(new, runtimes.cores(), "float32")
        found = np.concatenate([run(batch) for batch in np.array_split(images, -(-len(images) // BATCH))])
        differences = preparation.differences({"probabilities": found}, expected)
        preparation.check(format, differences, 1 if format == "litert_int8" else ready.tolerance)
        exported = preparation.Exported(format, target, preparation.size_of(staged), *differences)
        metadata |= {"disagreement": exported.disagreement, "disagreement_of_logarithms": exported.logarithms}
        new.with_name(f"{new.name}.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
        files = sorted(staged.iterdir(), key=lambda file: file == new)  # the one that was asked for comes last
        for file in files:
            preparation.check_free(target.with_name(file.name), overwrite)
        for file in files:
            file.replace(target.with_name(file.name))
    return exported


def write(ready, path, format, images=None):
    """Writes the file of a `Prepared`, in eight bits with the ranges of `images`; returns what its JSON file says.

    Raises:
        ValueError: a network in mixed precision.
    """
    if ready.tolerance != preparation.TOLERANCE:
        raise ValueError(
            f"format={format!r} is of networks in float32: build {ready.model.name} with "
            f"keras.config.set_dtype_policy('float32') and the same weights. Received: {ready.model.dtype_policy.name}"
        )
    options = OPTIONS[format](images) if format in OPTIONS else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)  # Keras's patch of tf2onnx
        model = of_pixels(ready)
        model(np.zeros((1, *ready.shape), "uint8"))  # Keras exports to ONNX what was called before
        model.export(str(path), format=FORMATS[format], verbose=False, **options)
    metadata = _metadata(ready, format)
    if format == "litert_int8":
        metadata["calibration_images"] = len(images)
    if format in NAMING:
        NAMING[format](path, metadata)
    return metadata


def of_pixels(ready):
    """Returns a model from `images`, uint8 (n, height, width, channels), to a dict of `probabilities`."""
    images = keras.Input(ready.shape, dtype="uint8", name="images")
    x = images
    if keras.config.image_data_format() == "channels_first":
        x = keras.layers.Permute((3, 1, 2))(x)
    x = layer(ready.preprocessing)(x)
    return keras.Model(images, {"probabilities": ready.network(x)["probabilities"]}, name=ready.model.name)


def _metadata(ready, format):
    """Returns what a client may want to know of a file, as plain JSON."""
    runtime = RUNTIMES[FORMATS[format]]
    packages = ("keras", runtime.backend, *runtime.writers)
    return {
        "format": format,
        **ready.metadata,
        "input": {"name": "images", "type": "uint8", "shape": ["batch", *ready.shape], "normalization": "inside"},
        "output": {"name": "probabilities", "type": "float32", "shape": ["batch", len(ready.labels)]},
        "versions": {"keras_preact": __version__} | {
            name: importlib.import_module(name).__version__ for name in packages
        },
    }


def _name_onnx(path, metadata):
    """Names the output and the batch dimension, and writes `metadata` as metadata_props, each value as JSON."""
    import onnx

    model = onnx.version_converter.convert_version(onnx.load(path), OPSET)
    (images,), (outputs,) = model.graph.input, model.graph.output
    for node in model.graph.node:
        node.output[:] = [metadata["output"]["name"] if name == outputs.name else name for name in node.output]
    outputs.name = metadata["output"]["name"]
    for value in (images, outputs):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _name_openvino(path, metadata):
    """Names the output, and writes `metadata` into rt_info under keras_preact, each value as JSON."""
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # the file that is read is written anew
    model = core.read_model(path)
    model.outputs[0].set_names({metadata["output"]["name"]})
    for key, value in metadata.items():
        model.set_rt_info(json.dumps(value), ["keras_preact", key])
    openvino.save_model(model, path, compress_to_fp16=False)


def _name_torch(path, metadata):
    """Writes `metadata` into the file, as keras_preact.json; its names are those of the Keras model."""
    import torch

    program = torch.export.load(path)
    torch.export.save(program, path, extra_files={"keras_preact.json": json.dumps(metadata)})


# LiteRT has names of its own.
NAMING = {"onnx": _name_onnx, "openvino": _name_openvino, "torch": _name_torch}


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


def _any_batch(images):
    """Returns the options of `torch.export` for batches of any size, which otherwise has that of its example."""
    import torch

    return {"dynamic_shapes": {0: torch.export.Dim("batch", min=1)}}


OPTIONS = {"litert_int8": _int8, "torch": _any_batch}
