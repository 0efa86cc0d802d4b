"""Formats of one file each, for other runtimes than TensorFlow: ONNX, LiteRT, OpenVINO and PyTorch."""
import importlib
import json
import tempfile
import warnings
from pathlib import Path

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
    preparation.require_backend(tuple(RUNTIMES[name].writers), format)
    runtimes.require(name, f"format={format!r}", keras.backend.backend())
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
        targets = {file: target.with_name(file.name) for file in files}
        for place in targets.values():
            preparation.check_free(place, overwrite)
        atomic.publish(targets, overwrite)
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
    model, metadata = of_pixels(ready), _metadata(ready, format)
    WRITERS[format](model, path, metadata, images)
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
    backend = keras.backend.backend()
    packages = ("keras", backend, *RUNTIMES[FORMATS[format]].writers[backend])
    return {
        "format": format,
        **ready.metadata,
        "input": {"name": "images", "type": "uint8", "shape": ["batch", *ready.shape], "normalization": "inside"},
        "output": {"name": "probabilities", "type": "float32", "shape": ["batch", len(ready.labels)]},
        "versions": {"keras_preact": __version__} | {
            name: importlib.import_module(name).__version__ for name in packages
        },
    }


def _onnx(model, path, metadata, images):
    """Writes `metadata` as metadata_props, each value as JSON."""
    import onnx

    proto, kernels = _onnx_by_torch(model) if keras.backend.backend() == "torch" else _onnx_by_tensorflow(model)
    for value in (proto.graph.input[0], *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(proto, full_check=True)
    _fill(proto.graph, kernels)
    onnx.save(proto, path)


def _onnx_by_torch(model):
    """Returns what `_onnx_by_tensorflow` does; the kernels are inside already."""
    import torch

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)  # of PyTorch's own code
        proto = torch.onnx.export(
            _program(model, Path(folder, "model.pt2")), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=["images"], output_names=["probabilities"],
        ).model_proto
    del proto.graph.value_info[:]  # they have PyTorch's name of the batch
    return proto, {}


def _onnx_by_tensorflow(model):
    """Returns an ONNX model whose kernels are inputs, and these as {name: variable}, which `_fill` puts in.

    As constants they would be copied dozens of times, which takes fifty times their memory.
    """
    import tensorflow as tf
    import tf2onnx

    variables, count = [*model.trainable_variables, *model.non_trainable_variables], len(model.trainable_variables)
    kernels = {f"kernel_{i}": variable for i, variable in enumerate(variables) if len(variable.shape) == 4}

    def call(images, *values):
        given = dict(zip(kernels, values))
        values = [given.get(f"kernel_{i}", variable.value) for i, variable in enumerate(variables)]
        return model.stateless_call(values[:count], values[count:], images, training=False)[0]

    signature = [tf.TensorSpec(model.input_shape, "uint8", "images")]
    signature += [tf.TensorSpec(kernel.shape, kernel.dtype, name) for name, kernel in kernels.items()]
    return tf2onnx.convert.from_function(tf.function(call, signature), signature, opset=OPSET)[0], kernels


def _fill(graph, variables):
    """Makes initializers of the inputs of an ONNX graph that `variables` names, and of their transposes."""
    from onnx import numpy_helper

    values = {name: (variable, range(len(variable.shape))) for name, variable in variables.items()}
    for node in [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in variables]:
        values[node.output[0]] = variables[node.input[0]], node.attribute[0].ints
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for name, (variable, order) in values.items():
        if name not in used:
            continue
        value = np.transpose(keras.ops.convert_to_numpy(variable), order)
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    inputs = [value for value in graph.input if value.name not in variables]
    del graph.input[:]
    graph.input.extend(inputs)


def _litert(model, path, metadata, images):
    model.export(str(path), format="litert", verbose=False)


def _int8(model, path, metadata, images):
    """Of weights and activations of eight bits, with the ranges of `images`."""
    import tensorflow as tf

    metadata["calibration_images"] = len(images)
    model.export(
        str(path), format="litert", verbose=False, optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([image[None]] for image in images),
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
    )


def _openvino(model, path, metadata, images):
    """Names the output, and writes `metadata` into rt_info under keras_preact, each value as JSON."""
    import openvino

    model.export(str(path), format="openvino", verbose=False)
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # the file that is read is written anew
    graph = core.read_model(path)
    graph.outputs[0].set_names({metadata["output"]["name"]})
    for key, value in metadata.items():
        graph.set_rt_info(json.dumps(value), ["keras_preact", key])
    openvino.save_model(graph, path, compress_to_fp16=False)


def _torch(model, path, metadata, images):
    """Writes `metadata` into the file, too, as keras_preact.json."""
    import torch

    torch.export.save(_program(model, path), path, extra_files={"keras_preact.json": json.dumps(metadata)})


def _program(model, path):
    """Returns the program of `torch.export` of a model, once Keras has written it to `path`."""
    import torch

    # Without it the batch would have the size of the example.
    model.export(str(path), format="torch", verbose=False, dynamic_shapes={0: torch.export.Dim("batch", min=1)})
    program = torch.export.load(path)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # places of code on this machine
    return program


WRITERS = {"onnx": _onnx, "litert": _litert, "litert_int8": _int8, "openvino": _openvino, "torch": _torch}


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
