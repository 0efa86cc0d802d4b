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
