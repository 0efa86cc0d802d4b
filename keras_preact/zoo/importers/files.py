"""Tensors out of files, as {name: array}; no code in them is run."""
import json
import re
from collections.abc import Mapping
from contextlib import contextmanager
from pickle import UnpicklingError

import h5py
import numpy as np

from keras_preact._support import kinds
from keras_preact.networks.files import DAMAGE, array, read

# Keys under which training scripts save a state dict. As timm does, we take the averages over training where they are.
AVERAGES = ("state_dict_ema", "model_ema")
WRAPPERS = ("state_dict", "model_state_dict", "net", "model")
PREFIXES = r"((module|_orig_mod)\.)+"  # of torch.nn.DataParallel and torch.compile
OUTER = ("model.", "net.")  # of a module that holds the network, where all names have them
# What they save beside it, which is passed over.
OBJECTS = (
    "argparse.Namespace", "numpy.dtype", "numpy.ndarray", "pathlib.PosixPath", "pathlib._local.PosixPath",
    *(f"numpy.{core}.multiarray.{function}" for core in ("core", "_core") for function in ("scalar", "_reconstruct")),
)
OWN = {"safetensors": (kinds.SAFETENSORS,), "Torch": (kinds.TORCH, kinds.ZIP, kinds.PICKLE)}
OWN |= {"Torch7": (kinds.TORCH7,), "Keras 1 or 2": (kinds.HDF5,)}


def safetensors_or_torch(path):
    """Reads a file of either kind, whatever it is called."""
    return torch(path) if kinds.kind_of(path) in OWN["Torch"] else safetensors(path)


def safetensors(path):
    with _needs("safetensors", path):
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    try:
        return state_dict(load_file(path))
    except (SafetensorError, *DAMAGE) as error:
        raise damaged(path, "safetensors", error) from error


def torch(path):
    """Reads a .pth file of a state dict, or of a training script that holds one."""
    with _needs("torch", path):
        import torch
    try:
        with torch.serialization.safe_globals([(_PassedOver, name) for name in OBJECTS]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if kinds.kind_of(path) not in (None, *OWN["Torch"]):
            raise damaged(path, "Torch", error) from error
        raise ValueError(
            f"{path} is refused: it holds Python objects, which run code when they are read, or is damaged. "
            "Give a file of a state dict, torch.save(model.state_dict(), file)."
        ) from error
    except Exception as error:  # of a damaged file torch raises what its code happens to meet
        raise damaged(path, "Torch", error) from error
    with understanding(path, "Torch"):
        return state_dict(state, path)


class _PassedOver:
    """Stands for an object of `OBJECTS`, of whose own code none is run."""

    def __init__(self, *values, **named):
        pass

    def __setstate__(self, state):
        pass


def state_dict(state, source="the given dict"):
    """Returns a mapping of names to tensors as one of names to arrays, without what training scripts wrap around it.

    Args:
        state: a state dict, or what a training script saves, which holds one.
        source: what to call it in errors.
    """
    if isinstance(state, Mapping):
        held = [[state[key] for key in keys if isinstance(state.get(key), Mapping)] for keys in (AVERAGES, WRAPPERS)]
        inner = held[0] or held[1]
        state = inner[0] if len(inner) == 1 else state
    others = {"": state} if not isinstance(state, Mapping) else {
        name: value for name, value in state.items() if not hasattr(value, "shape")
    }
    if others:
        raise ValueError(
            "A state dict, of names and tensors alone, is expected, as model.state_dict() returns it. Received: "
            + ", ".join(f"{type(value).__name__} {name}".strip() for name, value in list(others.items())[:5])
            + f" in {source}"
        )
    return _unprefixed({name: _numbers(tensor) for name, tensor in state.items()})


def _numbers(tensor):
    """Returns an array; NumPy takes no tensors of Torch that have gradients or are bfloat16."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach()
        tensor = tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
    return np.asarray(tensor)


def _unprefixed(tensors):
    """Returns tensors by their names in the network itself."""
    tensors = {re.sub(f"^{PREFIXES}", "", name): tensor for name, tensor in tensors.items()}
    outer = next((prefix for prefix in OUTER if tensors and all(name.startswith(prefix) for name in tensors)), None)
    return _unprefixed({name.removeprefix(outer): tensors[name] for name in tensors}) if outer else tensors


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
        raise damaged(path, "Keras 1 or 2", error) from error
    return arrays


def config(path):
    """Returns what a config.json says."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged(path, "timm configuration", error) from error


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
        raise damaged(path, kind, error) from error


def damaged(path, kind, error):
    """Returns the ValueError of a file `path` that cannot be read as one of some kind, such as "safetensors"."""
    return kinds.unread(path, f"a {kind} file", OWN.get(kind, ()), error)
