"""fb.resnet.torch's pre-activation networks: the tree its Lua code builds, written as a .t7 file, and evaluated."""
import struct

import numpy as np
import torch
import torch.nn.functional as F


class Module:
    """A module of Torch7: its class, and its fields as Lua has them."""

    def __init__(self, kind, *children, **fields):
        self.kind = kind
        self.fields = {"train": False, "_type": "torch.FloatTensor", "output": np.zeros(0, "float32"), **fields}
        if children:
            self.fields["modules"] = dict(enumerate(children, start=1))


def preresnet(units, widths, bottleneck=False, imagenet=True, shortcut="B", classes=10, dtype="float32", seed=0):
    """models/preresnet.lua, with random weights."""
    rng = np.random.default_rng(seed)
    expansion = 4 if bottleneck else 1
    channels = widths[0]

    def conv(inputs, filters, kernel, stride=1):
        weight = rng.normal(0, np.sqrt(2 / (inputs * kernel**2)), (filters, inputs, kernel, kernel)).astype(dtype)
        pad = kernel // 2
        return Module("cudnn.SpatialConvolution", nInputPlane=inputs, nOutputPlane=filters, kW=kernel, kH=kernel,
                      dW=stride, dH=stride, padW=pad, padH=pad, weight=weight, gradWeight=np.zeros(0, "float32"))

    def activation(n):
        return (
            Module(
                "nn.SpatialBatchNormalization", eps=1e-5, momentum=0.1, affine=True,
                weight=(rng.uniform(0.5, 1.5, n) * rng.choice((-1, 1), n)).astype(dtype),
                bias=rng.normal(0, 0.5, n).astype(dtype), running_mean=rng.normal(0, 0.5, n).astype(dtype),
                running_var=rng.uniform(0.5, 2, n).astype(dtype), __shareGradInputKey="preact",
            ),
            Module("cudnn.ReLU", inplace=True, mode="CUDNN_ACTIVATION_RELU"),
        )

    def pool(kind, kernel, stride=1, pad=0):
        return Module(kind, kW=kernel, kH=kernel, dW=stride, dH=stride, padW=pad, padH=pad, ceil_mode=False)

    def skip(filters, stride):
        if channels == filters:
            return Module("nn.Identity")
        if shortcut == "B":
            return Module("nn.Sequential", conv(channels, filters, 1, stride))
        zeros = Module("nn.Concat", Module("nn.Identity"), Module("nn.MulConstant", constant_scalar=0), dimension=2)
        return Module("nn.Sequential", pool("nn.SpatialAveragePooling", 1, stride), zeros)

    def block(width, stride, kind):
        nonlocal channels
        before = activation(channels) if kind != "no_preact" else ()
        if bottleneck:
            convs = [(channels, width, 1, 1), (width, width, 3, stride), (width, width * 4, 1, 1)]
        else:
            convs = [(channels, width, 3, stride), (width, width, 3, 1)]
        branch = [] if kind == "both_preact" else list(before)
        for i, shape in enumerate(convs):
            branch += [*(activation(shape[0]) if i else ()), conv(*shape)]
        table = Module("nn.ConcatTable", Module("nn.Sequential", *branch), skip(width * expansion, stride))
        channels = width * expansion
        return Module("nn.Sequential", *(before if kind == "both_preact" else ()), table,
                      Module("nn.CAddTable", inplace=True))

    def stage(width, count, stride, first):
        blocks = [block(width, stride, first), *(block(width, 1, None) for _ in range(1, count))]
        return Module("nn.Sequential", *blocks)

    if imagenet:
        modules = [conv(3, channels, 7, 2), *activation(channels), pool("nn.SpatialMaxPooling", 3, 2, 1)]
    else:
        modules = [conv(3, channels, 3)]
    for s, (count, width) in enumerate(zip(units, widths)):
        modules.append(stage(width, count, 2 if s else 1, "no_preact" if imagenet and not s else "both_preact"))
    modules += [*activation(channels), pool("cudnn.SpatialAveragePooling", 7 if imagenet else 8),
                Module("nn.View", numElements=channels, numInputDims=3),
                Module("nn.Linear", weight=rng.normal(0, 0.05, (classes, channels)).astype(dtype),
                       bias=rng.normal(0, 0.5, classes).astype(dtype))]
    return Module("nn.Sequential", *modules)


def evaluate(module, x):
    """The output of a tree for a tensor (or a list of them), of shape (batch, channels, height, width)."""
    fields = {name: torch.as_tensor(v) if isinstance(v, np.ndarray) else v for name, v in module.fields.items()}
    children = module.fields.get("modules", {}).values()
    kind = module.kind.split(".")[1]
    if kind == "Sequential":
        for child in children:
            x = evaluate(child, x)
        return x
    if kind == "ConcatTable":
        return [evaluate(child, x) for child in children]
    if kind == "Concat":
        return torch.cat([evaluate(child, x) for child in children], fields["dimension"] - 1)
    return {
        "SpatialConvolution": lambda: F.conv2d(x, fields["weight"], None, fields["dW"], fields["padW"]),
        "SpatialBatchNormalization": lambda: F.batch_norm(
            x, fields["running_mean"], fields["running_var"], fields["weight"], fields["bias"], eps=fields["eps"]
        ),
        "ReLU": lambda: F.relu(x),
        "SpatialMaxPooling": lambda: F.max_pool2d(x, fields["kW"], fields["dW"], fields["padW"]),
        "SpatialAveragePooling": lambda: F.avg_pool2d(x, fields["kW"], fields["dW"]),
        "CAddTable": lambda: x[0] + x[1],
        "Identity": lambda: x,
        "MulConstant": lambda: x * fields["constant_scalar"],
        "View": lambda: x.reshape(-1, fields["numElements"]),
        "Linear": lambda: F.linear(x, fields["weight"], fields["bias"]),
    }[kind]()


TYPES = {"f4": "Float", "f8": "Double", "i8": "Long"}


class Writer:
    """Torch7's binary serialization, as its File.lua, Tensor.c and Storage.c write it."""

    def __init__(self):
        self.out, self.written, self.modules = bytearray(), 0, {}

    def int(self, *values):
        self.out += struct.pack(f"<{len(values)}i", *values)

    def longs(self, *values):
        self.out += struct.pack(f"<{len(values)}q", *values)

    def string(self, text):
        self.int(len(text))
        self.out += text.encode()

    def reference(self, kind):
        self.written += 1
        self.int(kind, self.written)

    def torch_object(self, name):
        self.reference(4)
        self.string("V 1")
        self.string(name)

    def write(self, value):
        if value is None:
            self.int(0)
        elif isinstance(value, bool):
            self.int(5, value)
        elif isinstance(value, (int, float)):
            self.int(1)
            self.out += struct.pack("<d", value)
        elif isinstance(value, str):
            self.int(2)
            self.string(value)
        elif isinstance(value, dict):
            self.reference(3)
            self.int(len(value))
            for key, item in value.items():
                self.write(key)
                self.write(item)
        elif isinstance(value, np.ndarray):
            name = TYPES[value.dtype.str[1:]]
            self.torch_object(f"torch.{name}Tensor")
            shape = value.shape if value.size else ()
            self.int(len(shape))
            self.longs(*shape)
            self.longs(*(stride // value.itemsize for stride in value.strides if value.size))
            self.longs(1)
            if not value.size:
                self.int(0)
                return
            self.torch_object(f"torch.{name}Storage")
            self.longs(value.size)
            self.out += value.tobytes()
        elif id(value) in self.modules:
            self.int(4, self.modules[id(value)])
        else:
            self.torch_object(value.kind)
            self.modules[id(value)] = self.written
            self.write(value.fields)


def save(path, value):
    writer = Writer()
    writer.write(value)
    path.write_bytes(writer.out)
