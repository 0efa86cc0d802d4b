"""Training recipes as plain values."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD with momentum, crop-and-flip augmentation, no choice made on the test set.

    Args:
        name: of the recipe.
        epochs: passes over the training images.
        batch_size: images in one step.
        learning_rate: its peak.
        warmup_epochs: over which the learning rate rises linearly from 0; a cosine then takes it to 0.
        momentum: of SGD.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: factor of the coupled L2 gradient, w in gradient + w * kernel; on conv and dense kernels alone.
        padding: pixels of zeros around a training image before it is cropped back to its size at random.
    """

    name: str
    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.2
    warmup_epochs: int = 2
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    padding: int = 4


RECIPES = {recipe.name: recipe for recipe in (
    Recipe("cifar_short", epochs=75),
)}
