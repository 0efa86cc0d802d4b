"""Torch7's `.t7` files of fb.resnet.torch's pre-activation networks (models/preresnet.lua).

The modules there have no names; the path to one, such as "5.1.2.1", counts each module among its parent's.
"""
import math
import struct
from itertools import islice, zip_longest
from typing import NamedTuple

import numpy as np

from keras_preact.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from keras_preact.zoo.importers import files
from keras_preact.zoo.importers.engine import TORCH, Upstream

OBJECTS = ()  # what `convert` takes besides files
CONV, BN = "SpatialConvolution", "SpatialBatchNormalization"
VARIABLES = ("weight", "bias", "running_mean", "running_var")
IMAGENET_PREPROCESSING = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, (224, 224), 0.875, "bicubic")
CIFAR_PREPROCESSING = Preprocessing(
    tuple(mean / 255 for mean in (125.3, 123.0, 113.9)), tuple(std / 255 for std in (63.0, 62.1, 66.7)), (32, 32)
)


def load(path, name):
    """Returns the `Upstream` of a .t7 file, whose tree of modules must be the one that the Lua code builds."""
    reader = _Reader(path)
    try:
        root = reader.object()
        # No more than there are: a module with many parents would be met time and again.
        modules = list(islice(_walk(root), len(reader.objects))) if isinstance(root, Module) else []
    except RecursionError as error:
        raise reader.damaged() from error
    convs = [module for _, module in modules if module.kind == CONV]
    epsilons = [module.setting("eps") for _, module in modules if module.kind == BN]
    if len(convs) < 2 or not epsilons or not isinstance(epsilons[0], (int, float)):
        raise ValueError(f"{path} does not hold a network of fb.resnet.torch.")
    stages = [child for child in _children(root) if child.kind == "Sequential"]
    large, bottleneck = convs[0].setting("kW") == 7, convs[1].setting("kW") == 1
    projects = not any(module.kind == "Concat" for _, module in modules)
    expected = _preresnet(
        [len(_children(stage)) for stage in stages], (1, 3, 1) if bottleneck else (3, 3), large, projects, epsilons[0]
    )
    layers, tensors = {}, {}
    for (module_path, module), (text, layer) in zip_longest(modules, expected, fillvalue=(None, None)):
        found = _text(module) if module else "nothing"
        if found != text:
            raise ValueError(
                f"{path} does not hold a network of fb.resnet.torch's models/preresnet.lua; nothing was loaded.\n"
                f"  module {module_path}: {text or 'nothing'} expected, {found} found"
            )
        if layer:
            layers[layer] = module_path
            tensors |= {
                f"{module_path}.{word}": tensor for word, tensor in module.fields.items()
                if word in VARIABLES and isinstance(tensor, np.ndarray) and tensor.size
            }
    layout = {
        "stem": "conv7x7_pool" if large else "conv3x3", "first_activation": "stem", "stride_on": "conv3x3",
        "shortcut": "project_on_change" if projects else "zero_pad", "epsilon": epsilons[0],
    }
    return Upstream(
        tensors, layers, layout, TORCH, preprocessing=IMAGENET_PREPROCESSING if large else CIFAR_PREPROCESSING,
        labels="imagenet" if large else "cifar10",
    )


def _preresnet(units, kernels, large, projects, epsilon):
    """Yields, depth first, (what a module is, which layer it is to us) of the tree that the Lua code builds."""
    def conv(layer, kernel, stride=1):
        return f"{CONV} {kernel}x{kernel}, stride {stride}, padding {kernel // 2}", layer

    def activation(layer):
        return (f"{BN}, epsilon {epsilon}", layer), ("ReLU", None)

    yield "Sequential", None
    yield conv("stem_conv", 7 if large else 3, 2 if large else 1)
    if large:
        yield from activation("stem_bn")
        yield "SpatialMaxPooling 3x3, stride 2, padding 1", None
    for s, count in enumerate(units, start=1):
        yield "Sequential", None
        for u in range(1, count + 1):
            name, first = f"stage{s}_unit{u}", s == u == 1
            stride = 2 if s > 1 and u == 1 else 1
            changes = stride == 2 or (first and len(kernels) == 3)
            shared = not large if first else changes
            yield "Sequential", None
            if shared:
                yield from activation("stem_bn" if first else f"{name}_bn1")
            yield "ConcatTable", None
            yield "Sequential", None
            for i, kernel in enumerate(kernels, start=1):
                if i > 1 or not (first or shared):
                    yield from activation(f"{name}_bn{i}")
                yield conv(f"{name}_conv{i}", kernel, stride if i == kernels.index(3) + 1 else 1)
            if not changes:
                yield "Identity", None
            elif projects:
                yield "Sequential", None
                yield conv(f"{name}_shortcut_conv", 1, stride)
            else:
                yield "Sequential", None
                yield f"SpatialAveragePooling 1x1, stride {stride}, padding 0", None
                yield from (("Concat", None), ("Identity", None), ("MulConstant", None))
            yield "CAddTable", None
    yield from activation("closing_bn")
    size = 7 if large else 8
    yield f"SpatialAveragePooling {size}x{size}, stride 1, padding 0", None
    yield "View", None
    yield "Linear", "predictions"


class Module(NamedTuple):
    """An object of Torch; its class is without the package, which is nn or cudnn."""

    kind: str
    fields: dict

    def setting(self, name, default=None):
        """Returns a number among the fields; of another value, which a network does not have there, its type."""
        value = self.fields.get(name, default)
        return value if isinstance(value, (int, float, type(None))) else type(value).__name__


def _children(module):
    children = module.fields.get("modules")
    children = children if isinstance(children, dict) else {}
    return [children[i] for i in range(1, len(children) + 1) if isinstance(children.get(i), Module)]


def _walk(module, path=""):
    yield path, module
    for i, child in enumerate(_children(module), start=1):
        yield from _walk(child, f"{path}.{i}".lstrip("."))


def _text(module):
    if module.kind == BN:
        return f"{BN}, epsilon {module.setting('eps')}"
    if "kW" not in module.fields:
        return module.kind

    def both(name):
        width, height = module.setting(f"{name}W", 0), module.setting(f"{name}H", 0)
        return width if width == height else f"{width} by {height}"

    kernel, stride, padding = map(both, ("k", "d", "pad"))
    return f"{module.kind} {kernel}x{kernel}, stride {stride}, padding {padding}"


class _Reader:
    """Reads Torch's binary serialization (torch7's File.lua). Functions in a file, compiled Lua, are passed over."""

    NIL, NUMBER, STRING, TABLE, TORCH, BOOLEAN = range(6)
    FUNCTIONS = (7, 8)
    DTYPES = {
        "Byte": "u1", "Char": "i1", "Short": "<i2", "Int": "<i4", "Long": "<i8", "Float": "<f4", "Double": "<f8",
        "Cuda": "<f4", "CudaDouble": "<f8",
    }

    def __init__(self, path):
        self.path, self.data, self.at, self.objects = path, memoryview(path.read_bytes()), 0, {}

    def object(self):
        kind = self.int()
        if kind == self.NIL:
            return None
        if kind == self.NUMBER:
            number = struct.unpack("<d", self.bytes(8))[0]
            return int(number) if number.is_integer() else number
        if kind == self.STRING:
            return self.string()
        if kind == self.BOOLEAN:
            return self.int() == 1
        if kind not in (self.TABLE, self.TORCH, *self.FUNCTIONS):
            raise self.damaged()
        index = self.int()
        if index in self.objects:
            return self.objects[index]
        if kind == self.TABLE:
            return self.fill(self.objects.setdefault(index, {}))
        if kind in self.FUNCTIONS:
            self.objects[index] = None
            self.string()
            self.object()
            return None
        version = self.string()
        package, _, name = (self.string() if version.startswith("V ") else version).rpartition(".")
        if package == "torch" and name.endswith(("Tensor", "Storage")):
            self.objects[index] = self.tensor() if name.endswith("Tensor") else self.storage(name)
        else:
            module = self.objects[index] = Module(name, {})
            fields = self.object()
            if not isinstance(fields, dict):
                raise self.damaged()
            module.fields.update(fields)
        return self.objects[index]

    def fill(self, table):
        for _ in range(self.int()):
            key, value = self.object(), self.object()
            if isinstance(key, (str, int, float)):
                table[key] = value
        return table

    def tensor(self):
        dimensions = self.int()
        shape, strides, (start,) = self.longs(dimensions), self.longs(dimensions), self.longs(1)
        storage = self.object()
        if storage is None or 0 in shape or not shape:
            return np.empty(0)
        last = start + sum((n - 1) * stride for n, stride in zip(shape, strides))
        inside = isinstance(storage, np.ndarray) and min(shape + strides) >= 0 and 0 < start <= last <= storage.size
        if not inside or math.prod(shape) > storage.size:
            raise self.damaged()
        strides = [stride * storage.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(storage[start - 1:], shape, strides)

    def storage(self, name):
        (size,) = self.longs(1)
        dtype = self.DTYPES.get(name.removesuffix("Storage"))
        if dtype is None:
            raise ValueError(f"{self.path} holds a torch.{name}, which is not supported.")
        return np.frombuffer(self.bytes(size * np.dtype(dtype).itemsize), dtype)

    def int(self):
        return struct.unpack("<i", self.bytes(4))[0]

    def longs(self, count):
        return struct.unpack(f"<{count}q", self.bytes(8 * count))

    def string(self):
        return str(self.bytes(self.int()), "latin-1")

    def bytes(self, count):
        if not 0 <= count <= len(self.data) - self.at:
            raise self.damaged()
        self.at += count
        return self.data[self.at - count:self.at]

    def damaged(self):
        return files.damaged(self.path, "Torch7", f"it breaks off at byte {self.at}")
