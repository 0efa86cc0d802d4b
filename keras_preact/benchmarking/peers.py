"""Networks of pytorchcv, trained by a step written by hand in PyTorch: what the benchmark holds Keras against."""
import importlib
import os
import time

import numpy as np

from keras_preact._support.processes import peak_memory

MODULES = ("preresnet_cifar", "preresnet", "resnet_cifar", "resnet")
AUTOCAST = {"float32": None, "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}  # of Keras's dtype policies


def one_batch(batch, size, classes):
    """Returns random images (batch, size, size, 3) in float32, of mean 0 and deviation 1, and their random labels."""
    random = np.random.default_rng(0)
    return random.normal(size=(batch, size, size, 3)).astype("float32"), random.integers(0, classes, batch)


def _maker(network):
    # `pytorchcv.model_provider` imports them all, and for one of them torchvision, whose build must match torch's.
    for module in MODULES:
        maker = getattr(importlib.import_module(f"pytorchcv.models.{module}"), network, None)
        if callable(maker):
            return maker
    raise ValueError(f"pytorchcv has no such network in its modules {', '.join(MODULES)}. Received: {network!r}")


class TorchTrainer:
    """Trains a network on one batch in memory, as PyTorch is fast: in channels_last, on all cores or one GPU.

    Args:
        network: what pytorchcv calls it, such as "preresnet20_cifar10"; with random weights.
        size: of the square images in pixels.
        precision: "float32", or "mixed_bfloat16" or "mixed_float16" by autocast.
    """

    memory = staticmethod(peak_memory)

    def __init__(self, network, size, precision):
        self.network, self.size, self.precision = network, size, precision

    def build(self):
        """Returns the seconds it took to build the network and its optimizer, and where it trains."""
        import torch

        start = time.perf_counter()
        torch.set_num_threads(os.cpu_count())
        torch.backends.cudnn.benchmark = True
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = _maker(self.network)().to(self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4, nesterov=True, foreach=True
        )
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.precision == "mixed_float16")
        return {"build": time.perf_counter() - start, "backend": "torch"}

    def seconds(self, batch, steps):
        """Returns how long so many training steps take; each reads its loss, as Keras does."""
        import torch

        images, labels = one_batch(batch, self.size, self.model.num_classes)
        # In memory (batch, height, width, channels), which is channels_last.
        images = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device)
        labels = torch.from_numpy(labels).to(self.device)
        start = time.perf_counter()
        for _ in range(steps):
            self.step(images, labels)
        return time.perf_counter() - start

    def step(self, images, labels):
        """Returns the loss of one training step."""
        import torch

        half = AUTOCAST[self.precision]
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, half and getattr(torch, half), enabled=half is not None):
            loss = torch.nn.functional.cross_entropy(self.model(images), labels)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item()
