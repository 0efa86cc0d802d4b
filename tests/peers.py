"""Networks of other zoos with random weights, as the tests of the importers hold ours against them."""
import sys
import types

import numpy as np
import pytest
import torch


class _Stub(types.ModuleType):
    """A module in which every name is a class, and every attribute of that is another."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}") or _AnyClass(name, (), {})


class _AnyClass(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyClass(name, (), {})


# timm and pytorchcv import torchvision, whose builds must match torch's. Nothing of it runs in these tests.
for name in ("", ".datasets", ".models", ".models.feature_extraction", ".ops", ".ops.misc", ".transforms",
             ".transforms.functional", ".utils"):
    sys.modules[f"torchvision{name}"] = _Stub(f"torchvision{name}")


def timm():
    return pytest.importorskip("timm")


def randomize(model, seed=0):
    """Draws all tensors of a Torch module at random, scales of both signs, such that signals stay of order 1."""
    rng = np.random.default_rng(seed)
    for module in model.modules():
        for variable, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            shape = tuple(tensor.shape)
            if variable == "num_batches_tracked":
                continue
            if len(shape) > 1:
                value = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
            elif variable == "weight":
                value = rng.uniform(0.5, 1.5, shape) * rng.choice((-1, 1), shape)
            elif variable == "running_var":
                value = rng.uniform(0.5, 2, shape)
            else:
                value = rng.normal(0, 0.5, shape)
            tensor.data.copy_(torch.as_tensor(value))
    return model.eval()


def logits(model, images):
    """The outputs of a Torch module for images of shape (count, height, width, channels)."""
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        return model(torch.as_tensor(images.transpose(0, 3, 1, 2)).to(dtype)).numpy()


class _CifarBlock(torch.nn.Module):
    def __init__(self, channels, filters, stride, option):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(filters)
        self.conv2 = torch.nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(filters)
        self.zeros = (filters - channels) // 2 if option == "A" else 0
        if stride > 1 and option == "B":
            conv = torch.nn.Conv2d(channels, filters, 1, stride, bias=False)
            self.downsample = torch.nn.Sequential(conv, torch.nn.BatchNorm2d(filters))

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.zeros:
            x = torch.nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.zeros, self.zeros))
        elif hasattr(self, "downsample"):
            x = self.downsample(x)
        return (x + y).relu()


class CifarResNet(torch.nn.Module):
    """akamaster's network for CIFAR with option "A", whose head is "linear"; chenyaofo's with "B", whose is "fc"."""

    def __init__(self, units, option, classes=10):
        super().__init__()
        self.conv1, self.bn1 = torch.nn.Conv2d(3, 16, 3, 1, 1, bias=False), torch.nn.BatchNorm2d(16)
        channels = 16
        for s, width in enumerate((16, 32, 64), start=1):
            blocks = []
            for u in range(units):
                blocks.append(_CifarBlock(channels, width, 2 if s > 1 and u == 0 else 1, option))
                channels = width
            self.add_module(f"layer{s}", torch.nn.Sequential(*blocks))
        self.add_module("linear" if option == "A" else "fc", torch.nn.Linear(64, classes))

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))
        return list(self.children())[-1](x.mean((2, 3)))
