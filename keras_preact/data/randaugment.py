"""RandAugment (Cubuk et al. 2020): a few random operations of one strength on each image, by Pillow.

The 14 operations are those of the paper's section 3, their largest strengths those of AutoAugment (Cubuk et al. 2019,
Table 6). All grow with the magnitude, as torchvision's do; the paper's code weakens some.
"""
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MOST = 10  # the magnitude of the largest strengths


def _moved(image, fill, *matrix):
    """Returns the image whose pixel at (column, row) is that of `image` at `matrix` @ (column, row, 1)."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill)


def _enhanced(image, enhancement, part):
    return enhancement(image).enhance(1 + 0.9 * part)


# Each takes (image, part of the largest strength, colour of what comes in at the borders). These go both ways:
SIGNED = {
    "shear_x": lambda image, part, fill: _moved(image, fill, 1, 0.3 * part, 0, 0, 1, 0),
    "shear_y": lambda image, part, fill: _moved(image, fill, 1, 0, 0, 0.3 * part, 1, 0),
    "translate_x": lambda image, part, fill: _moved(image, fill, 1, 0, 0.45 * part * image.width, 0, 1, 0),
    "translate_y": lambda image, part, fill: _moved(image, fill, 1, 0, 0, 0, 1, 0.45 * part * image.height),
    "rotate": lambda image, part, fill: image.rotate(30 * part, Image.Resampling.BILINEAR, fillcolor=fill),
    "color": lambda image, part, fill: _enhanced(image, ImageEnhance.Color, part),
    "contrast": lambda image, part, fill: _enhanced(image, ImageEnhance.Contrast, part),
    "brightness": lambda image, part, fill: _enhanced(image, ImageEnhance.Brightness, part),
    "sharpness": lambda image, part, fill: _enhanced(image, ImageEnhance.Sharpness, part),
}
OPERATIONS = SIGNED | {
    "identity": lambda image, part, fill: image,
    "autocontrast": lambda image, part, fill: ImageOps.autocontrast(image),
    "equalize": lambda image, part, fill: ImageOps.equalize(image),
    "posterize": lambda image, part, fill: ImageOps.posterize(image, 8 - round(4 * part)),  # bits that stay
    "solarize": lambda image, part, fill: ImageOps.solarize(image, 256 - int(256 * part)),  # inverts from there on
}
NAMES = tuple(OPERATIONS)


def rand_augment(image, policy, fill, rng):
    """Returns a changed copy of an image, uint8 of shape (height, width, 1 or 3).

    Args:
        image: the array.
        policy: (operations, magnitude): how many, each any of `OPERATIONS` with equal chances, and how strong, from 0
            to `MOST`.
        fill: of each channel, the value of what comes in at the borders.
        rng: a NumPy generator.
    """
    operations, magnitude = policy
    part = magnitude / MOST
    grey = image.shape[-1] == 1
    changed, fill = Image.fromarray(image[..., 0] if grey else image), fill[0] if grey else tuple(fill)
    for chosen, sign in zip(rng.integers(len(NAMES), size=operations), rng.choice((-1, 1), operations)):
        name = NAMES[chosen]
        changed = OPERATIONS[name](changed, sign * part if name in SIGNED else part, fill)
    return np.asarray(changed).reshape(image.shape)


def fill_of(mean):
    """Returns `fill` for the mean of each channel, where white is 1: the value that normalization makes zero."""
    return [round(255 * part) for part in mean]
