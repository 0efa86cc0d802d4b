"""Training recipes as plain values; `RECIPES` is the table of them."""
import dataclasses
import difflib

import keras

CHOICES = {"schedule": ("steps", "cosine"), "decay": ("all", "kernels")}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD with momentum and the coupled L2 gradient, on randomly cropped and flipped images.

    Args:
        name: of the recipe.
        source: where it comes from.
        epochs: passes over the training images.
        batch_size: images in one step, over all devices.
        learning_rate: after warm-up.
        schedule: "steps", divided by 10 at each of `drops`, or "cosine", to 0.
        drops: parts of the run after which the learning rate is divided by 10.
        warmup_steps: steps before the full learning rate.
        warmup_rate: the learning rate during warm-up; None for a linear rise from 0, which only "cosine" knows.
        momentum: of SGD.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: factor d of the L2 gradient, g + d * w, which enters the momentum.
        decay: what it acts on, "all" parameters or the "kernels" of convs and dense layers alone.
        label_smoothing: share of the target that is spread over all classes.
        padding: pixels of zeros around a training image before it is cropped back to its size at random.
        cutout: side in pixels of the square that is set to zero at a random place; 0 for none.
        mixup: alpha of the Beta distribution that pairs of images are mixed by; 0 for none.

    Raises:
        ValueError: a value that is out of range or not among the choices.
    """

    name: str
    source: str
    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: str = "steps"
    drops: tuple = (0.5, 0.75)
    warmup_steps: int = 0
    warmup_rate: float | None = None
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay: str = "all"
    label_smoothing: float = 0.0
    padding: int = 4
    cutout: int = 0
    mixup: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "drops", tuple(self.drops))
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(
                    f"`{field}` must be one of {', '.join(map(repr, choices))}. Received: {getattr(self, field)!r}"
                )
        for field in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, field) > 0:
                raise ValueError(f"`{field}` must be positive. Received: {getattr(self, field)}")
        if self.schedule == "steps" and self.warmup_steps and self.warmup_rate is None:
            raise ValueError("schedule='steps' warms up at a constant rate: give `warmup_rate`. Received: None")

    def learning_rates(self, steps_per_epoch):
        """Returns the Keras schedule of this recipe."""
        steps = self.epochs * steps_per_epoch
        if self.schedule == "cosine":
            return keras.optimizers.schedules.CosineDecay(
                self.warmup_rate or 0.0 if self.warmup_steps else self.learning_rate, steps - self.warmup_steps,
                warmup_target=self.learning_rate if self.warmup_steps else None, warmup_steps=self.warmup_steps,
            )
        boundaries = [self.warmup_steps] * bool(self.warmup_steps) + [round(part * steps) for part in self.drops]
        values = [self.warmup_rate] * bool(self.warmup_steps)
        values += [self.learning_rate / 10**i for i in range(len(self.drops) + 1)]
        # Keras's boundaries are the last steps of a value, counted from 0.
        return keras.optimizers.schedules.PiecewiseConstantDecay([b - 1 for b in boundaries], values)


_PAPER = Recipe(
    "cifar_paper", "the paper's appendix: 64k iterations, divisions at 32k and 48k", epochs=164,
    warmup_steps=400, warmup_rate=0.01,
)
_TORCH = Recipe(
    "cifar_torch", "the authors' Torch release: batch 64, divisions after 80 and 121 of 200 epochs", epochs=200,
    batch_size=64, drops=(80 / 200, 121 / 200), nesterov=True,
)

RECIPES = {recipe.name: recipe for recipe in (
    _PAPER,
    dataclasses.replace(_PAPER, name="cifar_paper_64", source="Table 4, ResNet-1001 with a batch of 64", batch_size=64),
    _TORCH,
    Recipe(
        "cifar_short", "ours, for small machines; chosen before it was first run", epochs=75, learning_rate=0.2,
        schedule="cosine", warmup_steps=780, nesterov=True, weight_decay=5e-4, decay="kernels",
    ),
)}


def find(name):
    """Returns the recipe of that name, or raises ValueError with the names there are."""
    if name not in RECIPES:
        near = difflib.get_close_matches(str(name), RECIPES, n=1)
        raise ValueError(
            f"`recipe` must be one of {', '.join(map(repr, RECIPES))}. Received: {name!r}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    return RECIPES[name]
