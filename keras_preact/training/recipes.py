"""Training recipes as plain values; `RECIPES` is the table of them. Keras loads when a schedule is asked for."""
import dataclasses
import math

from keras_preact._support.checks import check_choice, is_count

CHOICES = {
    "optimizer": ("sgd", "muon", "adamw", "lamb"), "schedule": ("steps", "cosine"), "decay": ("all", "kernels"),
    "bn": ("trained", "frozen"), "augmentation": ("pad_crop", "scale_jitter", "scale_aspect"),
}
# Fields, the rule that their numbers keep, and whether a number keeps it.
RANGES = (
    (("epochs", "batch_size", "learning_rate", "warmup_of", "size", "clip", "accumulate"), "be positive",
     lambda n: n > 0),
    (("warmup_steps", "warmup_rate", "weight_decay", "padding", "cutout", "mixup", "cutmix", "lighting",
      "head_epochs"), "be at least 0", lambda n: n >= 0),
    (("momentum", "ema", "label_smoothing"), "be at least 0 and less than 1", lambda n: 0 <= n < 1),
    (("survival", "layer_decay"), "be above 0 and at most 1", lambda n: 0 < n <= 1),
    (("colour", "erasing"), "lie between 0 and 1", lambda n: 0 <= n <= 1),
)


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
        drops: parts of the run after which the learning rate is divided by 10, in ascending order.
        warmup_steps: steps before the full learning rate.
        warmup_rate: the learning rate during warm-up; None for a linear rise from 0, which only "cosine" knows.
        warmup_of: epochs of the run that `warmup_steps` are meant for; a copy with other `epochs` warms up in
            proportion. Default: `epochs`.
        optimizer: "sgd", with the coupled L2 gradient; "muon" for the kernels of convs, which alone decay, and
            SGD at ten times the learning rate for all else (`optimizers.Muon`); "adamw", Adam with decoupled decay;
            or "lamb", that for large batches.
        momentum: of "sgd" and "muon".
        nesterov: whether the momentum is Nesterov's.
        weight_decay: factor d of the L2 gradient, g + d * w, which enters the momentum; of "muon" the part of a kernel
            that a step at the learning rate 1 takes from it, of "adamw" and "lamb" likewise.
        decay: what it acts on, "all" parameters or the "kernels" of convs and dense layers alone.
        clip: norm of all gradients together above which they are scaled down to it; None for none.
        accumulate: batches whose mean gradient makes one step of the optimizer; steps elsewhere are batches.
        ema: part of it that the exponential moving average of each weight keeps in a step; 0 for no averages. With them
            the network that is measured after each epoch, and that the run ends with, is that of the averages, and
            batch normalization has their statistics on 50 batches of training images.
        label_smoothing: share of the target that is spread over all classes.
        augmentation: which crop of a training image is taken, before it is flipped at random. "pad_crop", of its own
            size, after zeros were padded around it; or, of photographs of any size, one of 224x224 pixels by
            "scale_jitter", the shorter side resized to between 256 and 480 pixels, or by "scale_aspect", 8 to 100 % of
            the area at an aspect ratio from 3/4 to 4/3.
        padding: pixels of zeros on each side, of "pad_crop".
        randaugment: (operations, magnitude) of RandAugment (Cubuk et al. 2020): how many random operations change each
            image, and how strongly, the magnitude from 0 to 10; on ImageNet the paper takes (2, 9). () for none.
        cutout: side in pixels of the square that is set to zero, the mean colour, at a random place; 0 for none.
        erasing: chance of an image that a random rectangle is filled with noise (random erasing, Zhong et al. 2020).
        mixup: alpha of the Beta distribution by which pairs of images are mixed (Zhang et al. 2018); 0 for none.
        cutmix: likewise, where one of them replaces a rectangle of the other (Yun et al. 2019); 0 for none. With both,
            each batch takes one of them, with equal chances.
        colour: how much brightness, contrast and saturation of photographs vary, 0.4 for 0.6 to 1.4 times.
        lighting: standard deviation of the colour that photographs are shifted by, in units of ImageNet's.
        survival: probability with which the last residual unit stays in a step, by stochastic depth (Huang et al.
            2016); it falls linearly to that from 1. 1 for none.
        size: side in pixels of the crop of photographs; None for the network's own. The scales are relative to it.
        head_epochs: epochs at first in which the last layer alone is trained. This and the next two are for runs that
            start from weights.
        layer_decay: times which the learning rate of a stage is that of the next one, up to the last layer, whose rate
            is `learning_rate`.
        bn: "frozen" leaves the statistics, gamma and beta of batch normalization as the weights have them; "trained"
            trains them.

    Raises:
        ValueError: a value that is out of range or not among the choices.

    Example:

    >>> recipe = kp.Recipe("mine", "an example", epochs=20, schedule="cosine", warmup_steps=400)
    >>> dataclasses.replace(recipe, epochs=10).warmup
    200
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
    warmup_of: int | None = None
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay: str = "all"
    clip: float | None = None
    accumulate: int = 1
    ema: float = 0.0
    label_smoothing: float = 0.0
    augmentation: str = "pad_crop"
    padding: int = 4
    randaugment: tuple = ()
    cutout: int = 0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    colour: float = 0.0
    lighting: float = 0.0
    size: int | None = None
    survival: float = 1.0
    head_epochs: int = 0
    layer_decay: float = 1.0
    bn: str = "trained"

    def __post_init__(self):
        for field in ("drops", "randaugment"):
            if isinstance(getattr(self, field), list):
                object.__setattr__(self, field, tuple(getattr(self, field)))
        if self.warmup_of is None:
            object.__setattr__(self, "warmup_of", self.epochs)
        for field in dataclasses.fields(self):
            _check_type(field, getattr(self, field.name))
        for field, choices in CHOICES.items():
            check_choice(field, getattr(self, field), choices)
        for fields, rule, keeps in RANGES:
            for field in fields:
                value = getattr(self, field)
                if value is not None and not (math.isfinite(value) and keeps(value)):
                    raise ValueError(f"`{field}` must {rule}. Received: {value}")
        numbers = all(isinstance(part, (int, float)) and 0 < part < 1 for part in self.drops)
        if not numbers or list(self.drops) != sorted(set(self.drops)):
            raise ValueError(
                f"`drops` must be parts of the run between 0 and 1, in ascending order. Received: {self.drops}"
            )
        _check_policy(self.randaugment)
        if self.schedule == "steps" and self.warmup_steps and self.warmup_rate is None:
            raise ValueError("schedule='steps' warms up at a constant rate: give `warmup_rate`. Received: None")
        if self.head_epochs >= self.epochs:
            raise ValueError(f"`head_epochs` must be less than the {self.epochs} epochs. Received: {self.head_epochs}")
        given = [field for field in ("colour", "lighting") if getattr(self, field)]
        if given and self.augmentation == "pad_crop":
            raise ValueError(f"augmentation='pad_crop' does not know {' and '.join(given)}: leave 0.")

    @property
    def mixes(self):
        """Whether `mixing.mix` changes a batch."""
        return any((self.cutout, self.erasing, self.mixup, self.cutmix))

    @property
    def warmup(self):
        """Steps of warm-up in a run of `epochs`."""
        return round(self.warmup_steps * self.epochs / self.warmup_of)

    def target_values(self, classes):
        """Returns the target of the right class and that of every other: 1 and 0, or smoothed."""
        share = self.label_smoothing
        return 1 - share + share / classes, share / classes

    def learning_rates(self, steps_per_epoch):
        """Returns the Keras schedule of this recipe.

        Raises:
            ValueError: the warm-up does not end before the learning rate falls.
        """
        from keras.optimizers import schedules

        steps, warmup = self.epochs * steps_per_epoch, self.warmup
        falls = round(min(self.drops, default=1) * steps) if self.schedule == "steps" else steps
        if warmup and warmup >= falls:
            raise ValueError(
                f"`warmup_steps` must be less than the {falls} steps after which this run lowers its learning rate or "
                f"ends, {steps_per_epoch} an epoch; on little data train for more epochs or give fewer (--set "
                f"warmup_steps={falls // 10}). Received: {warmup}"
            )
        if self.schedule == "cosine":
            return schedules.CosineDecay(
                self.warmup_rate or 0.0 if warmup else self.learning_rate, steps - warmup,
                warmup_target=self.learning_rate if warmup else None, warmup_steps=warmup,
            )
        boundaries = [round(part * steps) for part in (*self.drops, 1)]  # Keras wants one or more
        values = [self.learning_rate / 10**i for i in (*range(len(boundaries)), len(self.drops))]
        if warmup:
            boundaries, values = [warmup, *boundaries], [self.warmup_rate, *values]
        # Keras's boundaries are the last steps of a value, counted from 0.
        return schedules.PiecewiseConstantDecay([b - 1 for b in boundaries], values)


def _check_policy(policy):
    """Checks `randaugment`."""
    numbers = len(policy) == 2 and is_count(policy[0]) and isinstance(policy[1], (int, float))
    if policy and not (numbers and 0 <= policy[1] <= 10):
        raise ValueError(
            "`randaugment` must be (operations, magnitude), one operation or more and a magnitude from 0 to 10, or (). "
            f"Received: {policy}"
        )


def _check_type(field, value):
    kind = field.type
    wanted = kind | int if kind in (float, float | None) else kind
    if not isinstance(value, wanted) or isinstance(value, bool) and kind is not bool:
        raise ValueError(f"`{field.name}` must be of the type {getattr(kind, '__name__', kind)}. Received: {value!r}")


_PAPER = Recipe(
    "cifar_paper", "the paper's appendix: 64k iterations, divisions at 32k and 48k", epochs=164,
    warmup_steps=400, warmup_rate=0.01,
)
_IMAGENET = Recipe(
    "imagenet_paper", "the paper's appendix, with the scale and colour augmentation of [1] (Table 5, \"scale\")",
    epochs=90, batch_size=256, drops=(30 / 90, 60 / 90), augmentation="scale_jitter", lighting=0.1,
)

_SHORT = Recipe(
    "cifar_short", "ours, for small machines; chosen before it was first run", epochs=75, learning_rate=0.2,
    schedule="cosine", warmup_steps=780, nesterov=True, weight_decay=5e-4, decay="kernels",
)

RECIPES = {recipe.name: recipe for recipe in (
    _PAPER,
    dataclasses.replace(_PAPER, name="cifar_paper_64", source="cifar_paper with a batch of 64", batch_size=64),
    Recipe(
        "cifar_torch", "the authors' Torch release: batch 64, divisions after 80 and 121 of 200 epochs", epochs=200,
        batch_size=64, drops=(80 / 200, 121 / 200), nesterov=True,
    ),
    _SHORT,
    dataclasses.replace(
        _SHORT, name="cifar_best", epochs=200, warmup_of=200, label_smoothing=0.1,
        source="ours: cifar_short for longer, with the best of the changes that were tried on 5,000 held-out images "
        "(examples/choose_recipe.py, PreActResNet20, 15 epochs, one seed: label smoothing 11.62 %, cutout 11.92 %, "
        "neither 12.12 %)",
    ),
    Recipe(
        "cifar_fast", "ours: Muon, for half as many epochs as cifar_short (PreActResNet20 after 15 epochs, one seed, "
        "on 5,000 held-out images: 9.80 %, by cifar_short 11.84 %)", epochs=40, learning_rate=0.02, schedule="cosine",
        warmup_steps=400, optimizer="muon", nesterov=True, weight_decay=0.1, decay="kernels", label_smoothing=0.1,
    ),
    _IMAGENET,
    dataclasses.replace(
        _IMAGENET, name="imagenet_torch", source="Facebook's Torch code (Table 5, \"scale+asp ratio\")", nesterov=True,
        augmentation="scale_aspect", colour=0.4,
    ),
)}


def for_fine_tuning(images, photographs=True):
    """Returns the recipe "fine_tune" for so many training images; fewer of them are seen more often.

    Args:
        images: of the data.
        photographs: whether they are photographs of any size, or images of one size.
    """
    return Recipe(
        "fine_tune", "ours (docs/fine-tuning.md)", epochs=min(max(36_000 // images, 5), 50), batch_size=min(32, images),
        learning_rate=0.03, schedule="cosine", nesterov=True, decay="kernels", head_epochs=1, layer_decay=0.7,
        augmentation="scale_aspect" if photographs else "pad_crop",
    )


def find(name):
    """Returns the recipe of that name, or raises ValueError with the names there are."""
    check_choice("recipe", name, RECIPES)
    return RECIPES[name]
