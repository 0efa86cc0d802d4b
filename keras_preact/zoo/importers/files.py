"""Tensors out of files, as {name: array}; no code in them is run."""
import json
from collections.abc import Mapping
from contextlib import contextmanager
from pickle import UnpicklingError

import h5py
import numpy as np

from keras_preact.networks.files import DAMAGE, array, read

WRAPPERS = ("state_dict", "net", "model")  # keys under which training scripts save a state dict
PREFIXES = ("module.", "_orig_mod.")  # of torch.nn.DataParallel and torch.compile


def safetensors(path):
    with _needs("safetensors", path):
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    try:
        return state_dict(load_file(path))
    except (SafetensorError, *DAMAGE) as error:
        raise _damaged(path, "safetensors", error) from error


def torch(path):
    """Reads a .pth file of a state dict, or of a training script that holds one."""
    with _needs("torch", path):
        import torch
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it holds Python objects, which run code when they are read, or is damaged. "
            "Give a file of a state dict, torch.save(model.state_dict(), file)."
        ) from error
    except Exception as error:  # of a damaged file torch raises what its code happens to meet
        raise _damaged(path, "Torch", error) from error
    with understanding(path, "Torch"):
        return state_dict(state)


def state_dict(state):
    """Returns a mapping of names to tensors as one of names to arrays, without what training scripts wrap around it."""
    if isinstance(state, Mapping):
        inner = [state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)]
        state = inner[0] if len(inner) == 1 else state
    others = {"": state} if not isinstance(state, Mapping) else {
        name: value for name, value in state.items() if not hasattr(value, "shape")
    }
    if others:
        raise ValueError(
            "A state dict, of names and tensors alone, is expected, as model.state_dict() returns it. Received: "
            + ", ".join(f"{type(value).__name__} {name}".strip() for name, value in list(others.items())[:5])
        )
    return {_unprefixed(name): _numbers(tensor) for name, tensor in state.items()}


def _numbers(tensor):
    """Returns an array; NumPy takes no tensors of Torch that have gradients or are bfloat16."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach()
        tensor = tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
    return np.asarray(tensor)


def _unprefixed(name):
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name


def keras(weights):
    """Returns {"layer.variable": array} of a Keras model, or of a .h5, .weights.h5 or .keras file."""
    if hasattr(weights, "layers"):
        return {
            f"{layer.name}.{variable.name}": array
            for layer in weights.layers for variable, array in zip(layer.weights, layer.get_weights())
        }
    if weights.name.endswith((".weights.h5", ".keras")):
        return {
            f"{layer}.{name}": array for layer, arrays in read(weights).items()
            for name, array in zip(_variables(arrays), arrays)
        }
    return {
        f"{layer}.{name.rpartition(f'{layer}/')[2]}": array for (layer, name), array in h5(weights).items()
    }


def _variables(arrays):
    """Returns the names of a layer's variables, which Keras 3 leaves out of its files, by their number."""
    names = ("gamma", "beta", "moving_mean", "moving_variance")[-len(arrays):]  # gamma comes first, or not at all
    if arrays[0].ndim > 1:
        names = ("kernel", "bias")
    return *names, *(str(i) for i in range(len(names), len(arrays)))


def h5(path):
    """Returns {(layer, variable): array} of the .h5 files that Keras wrote before its version 3."""
    arrays = {}
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            for layer in _names(root, "layer_names"):
                for name in _names(root[layer], "weight_names"):
                    arrays[layer, name.removesuffix(":0")] = array(file, root[layer][name])
    except DAMAGE as error:
        raise _damaged(path, "Keras 1 or 2", error) from error
    return arrays


def config(path):
    """Returns what a config.json says."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise _damaged(path, "timm configuration", error) from error


def _names(group, attribute):
    """Returns the names in an attribute; HDF5 wants more than 64 kilobytes of them in parts, with numbers."""
    parts = [part for part in (attribute, *(f"{attribute}{i}" for i in range(len(group.attrs)))) if part in group.attrs]
    if not parts:
        raise KeyError(f"{group.name} has no {attribute}")
    names = [name for part in parts for name in group.attrs[part]]
    return [name.decode() if isinstance(name, bytes) else name for name in names]


@contextmanager
def _needs(package, path):
    try:
        yield
    except ImportError as error:
        raise ImportError(f"To read {path}, install {package}: pip install {package}") from error


@contextmanager
def understanding(path, kind):
    """Turns what is raised over values that a file `path`, of some kind, should not hold into a ValueError."""
    try:
        yield
    except (TypeError, AttributeError, LookupError, RuntimeError) as error:
        raise _damaged(path, kind, error) from error


def _damaged(path, kind, error):
    return ValueError(
        f"{path} cannot be read as a {kind} file; it may be truncated or damaged: {error}. Copy or download it again."
    )
