"""Tensors out of files, as {name: array}; no code in them is run."""
import importlib
import json

import h5py
import numpy as np

from keras_preact import pretrained


def safetensors(path):
    library = _library("safetensors.numpy", path)
    error_type = importlib.import_module("safetensors").SafetensorError
    try:
        return library.load_file(path)
    except (error_type, OSError, KeyError, TypeError) as error:
        raise _damaged(path, "safetensors", error) from error


def torch(path):
    """Reads a .pth file of a state dict."""
    library = _library("torch", path)
    try:
        state = library.load(path, map_location="cpu", weights_only=True)
    except importlib.import_module("pickle").UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it holds Python objects, which run code when they are read, or is damaged. "
            "Give a file of a state dict, torch.save(model.state_dict(), file)."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise _damaged(path, "Torch", error) from error
    return state_dict(state)


def state_dict(state):
    """Returns a mapping of names to tensors as one of names to arrays."""
    others = [name for name, tensor in state.items() if not hasattr(tensor, "shape")]
    if others:
        raise ValueError(
            "A state dict, of names and tensors alone, is expected, as model.state_dict() returns it. "
            f"Received other things under {', '.join(map(repr, others[:5]))}."
        )
    return {name: np.asarray(tensor) for name, tensor in state.items()}


def keras(weights):
    """Returns {"layer.variable": array} of a Keras model, or of a .h5, .weights.h5 or .keras file."""
    if hasattr(weights, "layers"):
        return {
            f"{layer.name}.{variable.name}": array
            for layer in weights.layers for variable, array in zip(layer.weights, layer.get_weights())
        }
    if weights.name.endswith((".weights.h5", ".keras")):
        return {
            f"{layer}.{name}": array for layer, arrays in pretrained.read(weights).items()
            for name, array in zip(_variables(arrays), arrays)
        }
    return {
        f"{layer}.{name.rsplit('/', 1)[-1]}": array for (layer, name), array in h5(weights).items()
    }


def _variables(arrays):
    if arrays[0].ndim > 1:
        return "kernel", "bias"
    return ("gamma", "beta", "moving_mean", "moving_variance")[-len(arrays):]  # gamma comes first, or not at all


def h5(path):
    """Returns {(layer, variable): array} of the .h5 files that Keras wrote before its version 3."""
    arrays = {}
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            for layer in map(_text, root.attrs["layer_names"]):
                for name in root[layer].attrs["weight_names"]:
                    arrays[layer, _text(name).removesuffix(":0")] = np.array(root[layer][name])
    except (OSError, KeyError, RuntimeError) as error:
        raise _damaged(path, "Keras 1 or 2", error) from error
    return arrays


def config(path):
    """Returns what a config.json says."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise _damaged(path, "JSON", error) from error


def _text(name):
    return name.decode() if isinstance(name, bytes) else name


def _library(name, path):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise ImportError(f"To read {path}, install {package}: pip install {package}") from error


def _damaged(path, kind, error):
    return ValueError(
        f"{path} cannot be read as a {kind} file; it may be truncated or damaged: {error}. Copy or download it again."
    )
