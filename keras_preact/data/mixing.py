"""Crops, holes and mixtures of the images of a batch, drawn by NumPy."""
import numpy as np

# Of a random erasing: the part of an image's area, and its height over its width (Zhong et al. 2020, section 4.2).
AREAS, ASPECTS, ATTEMPTS = (0.02, 0.4), (0.3, 1 / 0.3), 10


def crop_and_flip(images, padding, rng):
    """Returns `images` (n, height, width, channels), padded by zeros, cropped back at random, half of them flipped."""
    n, height, width, channels = images.shape
    top, left = rng.integers(0, 2 * padding + 1, (2, n)).tolist()
    flip = rng.random(n) < 0.5
    found = np.empty_like(images)
    # One image at a time stays in the cache: ten times as fast as indexing the whole batch.
    padded = np.zeros((height + 2 * padding, width + 2 * padding, channels), images.dtype)
    for new, image, t, s, mirrored in zip(found, images, top, left, flip):
        padded[padding:padding + height, padding:padding + width] = image
        crop = padded[t:t + height, s:s + width]
        new[:] = crop[:, ::-1] if mirrored else crop
    return found


def cut_out(images, side, rng):
    """Sets, in each image, a square of zeros whose centre lies anywhere in it (DeVries and Taylor 2017); in place."""
    n, height, width, _ = images.shape
    top, left = rng.integers(0, height, n) - side // 2, rng.integers(0, width, n) - side // 2
    for image, t, s in zip(images, top, left):
        image[max(t, 0):t + side, max(s, 0):s + side] = 0
    return images


def erase(images, chance, rng):
    """Fills, in each image with that chance, a rectangle with noise of the normal distribution; in place.

    Its area and place are drawn as by Zhong et al. (2020), section 3.2, its aspect ratio on a scale of logarithms; the
    first of ten that fits is taken.
    """
    n, height, width, channels = images.shape
    for image in (image for image, drawn in zip(images, rng.random(n)) if drawn < chance):
        part, aspect = rng.uniform(*AREAS, ATTEMPTS), np.exp(rng.uniform(*np.log(ASPECTS), ATTEMPTS))
        sides = np.sqrt(height * width * part * (aspect, 1 / aspect)).round().astype(int).T
        tall, wide = next((side for side in sides.tolist() if side[0] < height and side[1] < width), (0, 0))
        top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
        image[top:top + tall, left:left + wide] = rng.normal(size=(tall, wide, channels))
    return images


def mix_up(images, targets, alpha, rng):
    """Mixes each image and target with another one, by a factor of Beta(alpha, alpha) (Zhang et al. 2018)."""
    factor, other = np.float32(rng.beta(alpha, alpha)), rng.permutation(len(images))
    return factor * images + (1 - factor) * images[other], factor * targets + (1 - factor) * targets[other]


def cut_mix(images, targets, alpha, rng):
    """Replaces a rectangle of each image by that of another one, and as much of its target (Yun et al. 2019).

    Its area is 1 - x of the image, x of Beta(alpha, alpha), its centre anywhere, what lies outside cut off.
    """
    n, height, width, _ = images.shape
    part, other = np.sqrt(1 - rng.beta(alpha, alpha)), rng.permutation(n)
    top, bottom, left, right = (
        edge for side in (height, width) for edge in _around(rng.integers(side), part * side, side)
    )
    images = images.copy()
    images[:, top:bottom, left:right] = images[other, top:bottom, left:right]
    factor = np.float32(1 - (bottom - top) * (right - left) / (height * width))
    return images, factor * targets + (1 - factor) * targets[other]


def _around(centre, length, side):
    """Returns (start, end) of a length around a place, within 0 to `side`."""
    start = centre - round(length) // 2
    return max(start, 0), min(start + round(length), side)


def mix(images, targets, recipe, rng):
    """Returns normalized float32 images and targets as `recipe` cuts, erases and mixes them.

    Of mixup and cutmix each batch takes one.
    """
    if recipe.cutout:
        images = cut_out(images, recipe.cutout, rng)
    if recipe.erasing:
        images = erase(images, recipe.erasing, rng)
    mixtures = [(way, alpha) for way, alpha in ((mix_up, recipe.mixup), (cut_mix, recipe.cutmix)) if alpha]
    if mixtures:
        way, alpha = mixtures[rng.integers(len(mixtures)) if len(mixtures) > 1 else 0]
        images, targets = way(images, targets, alpha, rng)
    return images, targets
