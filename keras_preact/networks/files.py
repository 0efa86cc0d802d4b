"""Files of weights, .weights.h5 and .keras: reading them without running code, and setting a network's weights."""
import hashlib
import io
import struct
import zipfile
import zlib
from contextlib import contextmanager

import h5py
import keras
import numpy as np

from keras_preact._support import kinds
from keras_preact._support.checks import as_list
from keras_preact._support.paths import local
from keras_preact.networks import costs
from keras_preact.networks.units import channel_axis

HEAD = "predictions"  # the layer whose size the number of classes sets
# The end of a file of ours: the sha256 of all before it. What reads HDF5 passes over it, it is written and moved with
# the file, and unlike HDF5's own checksums it covers names and structure as well as values.
SEAL = "keras_preact sha256 {}\n"
SEALED = len(SEAL.format(hashlib.sha256().hexdigest()))
# What h5py, zipfile and our own reading raise for files that are not what they seem.
DAMAGE = (
    OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError, EOFError, struct.error, zlib.error,
    zipfile.BadZipFile,
)
PACKED = 100  # times: weights are hardly made smaller by compression


def read(path):
    """Returns {layer name: its arrays in Keras's order} of a .weights.h5 or .keras file; no code in it is run.

    Raises:
        ValueError: no such file, another kind of file, or one that cannot be read to its end.
    """
    with reading(path) as path:
        if path.suffix == ".keras":
            return _layers(_member(path, "model.weights.h5"))
        return _layers(path)


def read_or_take(weights):
    """Returns what `read` does, of a file or of a `keras.Model`."""
    if hasattr(weights, "layers"):
        return {layer.name: layer.get_weights() for layer in weights.layers if layer.weights}
    return read(weights)


def digest(layers):
    """Returns a hash of the names and values of weights, as `read` returns them."""
    found = hashlib.sha256()
    for name in sorted(layers):
        found.update(name.encode())
        for array in layers[name]:
            found.update(np.ascontiguousarray(array))
    return found.hexdigest()


def _member(path, name):
    """Returns a file of an archive, in memory: HDF5 goes back and forth in it, which compression makes slow."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
        if info.file_size > PACKED * max(info.compress_size, 1):
            raise RuntimeError(f"{name} is to become {info.file_size} bytes out of {info.compress_size}")
        return io.BytesIO(archive.read(info))


def note(path, name, value):
    """Writes a value into a .weights.h5 file that is not sealed yet."""
    with h5py.File(path, "r+") as h5:
        h5.attrs[name] = value


def noted(path, name):
    """Returns what `note` wrote, or None."""
    with h5py.File(path, "r") as h5:
        return h5.attrs.get(name)


def seal(path):
    """Writes to the end of a finished .weights.h5 file what `reading` compares it with."""
    with open(path, "r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.write(SEAL.format(digest).encode())


def _check_seal(path):
    if path.stat().st_size < SEALED:
        return
    content = np.memmap(path, "uint8", "r")
    end = content[-SEALED:].tobytes()
    # Keras's files have none. One damaged word does not make it one of these.
    if any(word.encode() in end for word in SEAL.split()[:2]):
        if end != SEAL.format(hashlib.sha256(content[:-SEALED]).hexdigest()).encode():
            raise OSError("its bytes are not those that were written, by the sha256 at its end")


@contextmanager
def reading(path):
    """Yields `path` of a file of weights, whose seal is compared; errors on what is in it become ValueErrors."""
    path = local("weights", path)
    if not path.is_file():
        raise ValueError(
            f"`weights` names a file that does not exist: {path}. A repository of the Hub is 'hf://owner/name'; the "
            "folder of a training run is what `load_run` takes."
        )
    if not path.name.endswith((".weights.h5", ".keras")):
        raise ValueError(f"`weights` must name a .weights.h5 or .keras file. Received: {path}")
    try:
        if path.suffix != ".keras":
            _check_seal(path)
        yield path
    except DAMAGE as error:
        own = (kinds.KERAS, kinds.ZIP) if path.suffix == ".keras" else (kinds.HDF5,)
        raise kinds.unread(path, "Keras weights", own, error) from error


def _layers(file):
    layers = {}
    with h5py.File(file, "r") as h5:
        for group in h5["layers"].values():
            variables = group["vars"]
            if len(variables):
                if "name" not in variables.attrs:
                    raise KeyError("its layers have no names, as Keras older than 3.8 leaves them")
                layers[variables.attrs["name"]] = [array(h5, variables[str(i)]) for i in range(len(variables))]
    return layers


def channels(layers):
    """Returns the number of channels of the images that weights, as `read` returns them, were trained on, or None."""
    kernel, *_ = layers.get("stem_conv", (None,))
    return kernel.shape[2] if np.ndim(kernel) == 4 else None


def classes(layers):
    """Returns the number of classes of weights, as `read` returns them; None without a head."""
    return np.atleast_1d(layers[HEAD][0]).shape[-1] if HEAD in layers else None


def check_size(config, layers, source):
    """Raises ValueError where a network has far more parameters than `source` holds, before its memory is taken."""
    wanted = costs.count(config, classes=classes(layers) or 1, channels=channels(layers) or 3).parameters
    found = sum(array.size for arrays in layers.values() for array in arrays)
    if wanted > 2 * found:
        raise ValueError(
            f"{source} holds {found} values, and the network that it is to be has {wanted} parameters; nothing was "
            "built. Give the weights of that network."
        )


def adapted(layers, count):
    """Returns the weights for images of so many channels, as timm adapts them; their values may become others.

    The channels of the first kernel are summed for one channel. Else they are repeated in turn and scaled, so that
    images whose channels are alike give what they gave before.

    Raises:
        ValueError: a network that normalizes its input by statistics of its channels.
    """
    if "input_bn" in layers:
        raise ValueError(
            f"These weights normalize images of {channels(layers)} channels by their own statistics; give such images, "
            f"or take weights=None. Received: images of {count} channels"
        )
    kernel, *others = layers["stem_conv"]
    trained = kernel.shape[2]
    if count == 1:
        kernel = kernel.sum(2, keepdims=True)
    else:
        kernel = kernel[:, :, np.arange(count) % trained] * np.float32(trained / count)
    return layers | {"stem_conv": [kernel, *others]}


def completed(shape, layers):
    """Returns `shape`, of an image or None, with the channels that the weights were trained on where it has None."""
    axis = 2 if channel_axis() == -1 else 0
    sides = as_list(shape)  # none of what is no shape, which the network refuses
    return tuple(channels(layers) if i == axis and n is None else n for i, n in enumerate(sides)) or shape


def array(h5, dataset):
    # HDF5 can take values from any file of the machine, or claim more of them than there are; no compression halves
    # weights.
    if dataset.file != h5 or dataset.external or 2 * dataset.id.get_storage_size() < dataset.nbytes:
        raise KeyError(f"the values of {dataset.name} are not in it")
    return np.array(dataset)


def assign(model, layers, source, keep_head=False):
    """Sets the weights of `model`, all of them or, where anything does not fit, none.

    Args:
        model: a network of the zoo.
        layers: as `read` returns them.
        source: what to call them in errors.
        keep_head: whether the layer "predictions" keeps the values it has.

    Raises:
        ValueError: layers that are missing, left over, of other shapes, or with values that are no weights: not of a
            floating-point type, not finite, or negative variances; they are named.
    """
    targets = {layer.name: layer.weights for layer in model.layers if layer.weights}
    sources = dict(layers)
    if keep_head:
        targets.pop(HEAD, None)
    if HEAD not in targets:
        sources.pop(HEAD, None)
    problems = [f"{name}: not in the file" for name in targets if name not in sources]
    problems += [f"{name}: in the file, not in the network" for name in sources if name not in targets]
    for name in targets.keys() & sources.keys():
        wanted = [tuple(variable.shape) for variable in targets[name]]
        found = [array.shape for array in sources[name]]
        if wanted != found:
            problems.append(f"{name}: the network has shapes {_shapes(wanted)}, the file {_shapes(found)}")
        else:
            problems += [f"{name}/{variable.name}: {what}" for variable, array in zip(targets[name], sources[name])
                         if (what := _no_weights(variable, array))]
    if problems:
        raise ValueError(
            f"The weights in {source} do not fit {model.name}; nothing was loaded. "
            "Build the network they were saved from (its builder, unit order and number of channels); of values that "
            f"are no weights, take another file.{_listed(problems)}"
        )
    for name, variables in targets.items():
        for variable, array in zip(variables, sources[name]):
            variable.assign(array)


def check_values(model, source):
    """Raises ValueError where weights of any model that was opened from `source` are none: as `assign` does."""
    problems = [
        f"{variable.path}: {what}" for variable in model.weights if keras.backend.is_float_dtype(variable.dtype)
        and (what := _no_numbers(variable, keras.ops.convert_to_numpy(variable)))
    ]
    if problems:
        raise ValueError(f"{source} holds values that are no weights; take another file.{_listed(problems)}")


def _listed(problems):
    more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
    return "\n  " + "\n  ".join(sorted(problems)[:10]) + more


def _no_weights(variable, array):
    """Returns what is wrong with the values for a variable, or None."""
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        return f"values of the type {array.dtype}, not of a floating-point type"
    if array.dtype.name == variable.dtype:
        return _no_numbers(variable, array)
    with np.errstate(over="ignore"):
        return _no_numbers(variable, array.astype(variable.dtype))


def _no_numbers(variable, array):
    """Returns what is wrong with the numbers that a variable is to have or has, or None."""
    wrong = np.count_nonzero(~np.isfinite(array))
    if wrong:
        return f"{wrong} of {array.size} values are not finite in {array.dtype}"
    if variable.name == "moving_variance" and (array < 0).any():
        return f"{np.count_nonzero(array < 0)} of {array.size} variances are negative"
    return None


def _shapes(shapes):
    return ", ".join("x".join(map(str, shape)) for shape in shapes)
