"""Random crops and colours of photographs, as Table 5 tells them apart, by TensorFlow.

Functions are stateless: the same seed, an int32 tensor of shape (2,), gives the same image.
"""
import io
import math

import numpy as np
import tensorflow as tf

from keras_preact.data import decoding
from keras_preact.data.preprocessing import read_image
from keras_preact.data.randaugment import fill_of, rand_augment

# Of scale jitter: the shorter side of an image, 256 to 480 pixels for a crop of 224, over the side of the crop.
SCALES = 256 / 224, 480 / 224
# Of scale and aspect ratio: the part of the image's area that a crop covers, and its width over its height.
AREAS, ASPECTS, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10
GREY = 0.299, 0.587, 0.114
# Standard deviations and directions of the colours of ImageNet, as Facebook's Torch code has them.
DEVIATIONS = 0.2175, 0.0188, 0.0045
DIRECTIONS = (-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203)


def fold(seed, i):
    """Returns another seed, for the `i`-th of several independent draws."""
    return tf.random.experimental.stateless_fold_in(seed, i)


def scale_window(shape, seed):
    """Returns (top, left, height, width) of the square that scale jitter crops (Sec. 3.4 of [1]).

    To cut it from the image and resize it is to resize the image, its shorter side to a random length, and to crop it.

    Args:
        shape: int32 tensor, (height, width) of the image.
        seed: int32 tensor of shape (2,).
    """
    part = _uniform(seed, 0, (3,))
    side = _pixels(tf.cast(tf.reduce_min(shape), "float32") / _between(part[0], *SCALES))
    return _placed(tf.fill((2,), side), shape, part[1:])


def area_window(shape, seed):
    """Returns (top, left, height, width) of a crop of random area and aspect ratio (Szegedy et al. 2015).

    As Facebook's Torch code draws it: the first of ten attempts that fits, or else the central square. Takes what
    `scale_window` takes.
    """
    area, aspect, turned, *corner = tf.unstack(_uniform(seed, 0, (5, ATTEMPTS)))
    area = tf.cast(tf.reduce_prod(shape), "float32") * _between(area, *AREAS)
    aspect = _between(aspect, *ASPECTS)
    aspect = tf.where(turned < 0.5, 1 / aspect, aspect)
    drawn = _pixels(tf.sqrt(tf.stack([area / aspect, area * aspect], 1)))
    sizes = tf.concat([drawn, tf.fill((1, 2), tf.reduce_min(shape))], 0)
    first = tf.argmax(tf.reduce_all(sizes <= shape, 1))
    return _placed(sizes[first], shape, tf.pad(tf.stack(corner, 1), [(0, 1), (0, 0)], constant_values=0.5)[first])


WINDOWS = {"scale_jitter": scale_window, "scale_aspect": area_window}


def crop_encoded(encoded, window, side, seed):
    """Returns a random window of an encoded image, resized, and flipped at random: float32 (side, side, 3), 0 to 255.

    Args:
        encoded: scalar string tensor, a file: a JPEG, of which the window alone is decoded, or what else Pillow reads.
        window: a function of `WINDOWS`.
        side: of the crop in pixels; the window is resized to it bicubically, with antialiasing.
        seed: int32 tensor of shape (2,).
    """
    def jpeg():
        rows, columns, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded), 3)
        orientation = decoding.orientation(encoded, decoding.JPEG)
        height, width = decoding.upright_size(rows, columns, orientation)
        box = tf.unstack(window(tf.stack([height, width]), seed), 4)
        stored = decoding.stored_box(box, height, width, orientation)
        return decoding.upright(decoding.decode_jpeg(encoded, tf.stack(stored)), orientation)

    def other():
        image = tf.ensure_shape(tf.numpy_function(_by_pillow, [encoded], "uint8", stateful=False), (None, None, 3))
        top, left, height, width = tf.unstack(window(tf.shape(image)[:2], seed), 4)
        return image[top:top + height, left:left + width]

    image = tf.ensure_shape(tf.cond(tf.io.is_jpeg(encoded), jpeg, other), (None, None, 3))
    # To reverse float32 takes as long as to resize.
    image = tf.raw_ops.Reverse(tensor=image, dims=tf.stack([False, _uniform(seed, 1) < 0.5, False]))
    return tf.clip_by_value(tf.image.resize(image, (side, side), "bicubic", antialias=True), 0, 255)


def by_policy(image, policy, mean, seed):
    """Returns an image changed by `rand_augment`, float32 of its shape (height, width, 3), 0 to 255.

    Args:
        image: float32 tensor.
        policy: (operations, magnitude).
        mean: of the channels, where white is 1, for what comes in at the borders.
        seed: int32 tensor of shape (2,).
    """
    fill = fill_of(mean)

    def changed(image, seed):
        return rand_augment(image, policy, fill, np.random.default_rng(seed.view("uint32")))

    pixels = tf.cast(tf.round(image), "uint8")
    found = tf.numpy_function(changed, [pixels, fold(seed, 4)], "uint8", stateful=False)
    return tf.cast(tf.ensure_shape(found, image.shape), "float32")


def jitter_colour(image, strength, seed):
    """Returns the (matrix, offset) for `change_colours` that scale brightness, contrast and saturation.

    Each by a factor from 1 - `strength` to 1 + `strength`. Nothing is clipped between them, so that their order, which
    is random in Facebook's Torch code, makes no difference.

    Args:
        image: float32 tensor (height, width, 3); 0 is black.
        strength: 0.4 in Facebook's Torch code.
        seed: int32 tensor of shape (2,).
    """
    brightness, contrast, saturation = tf.unstack(_between(_uniform(seed, 2, (3,)), 1 - strength, 1 + strength))
    matrix = saturation * tf.eye(3) + (1 - saturation) * tf.constant(GREY)[:, None]
    mean = tf.tensordot(tf.reduce_mean(tf.reduce_mean(image, 0), 0), GREY, 1)
    return brightness * contrast * matrix, tf.fill((3,), brightness * (1 - contrast) * mean)


def jitter_lighting(strength, seed):
    """Returns a random colour to add, along the principal components of ImageNet's (AlexNet, Sec. 4.1): float32 (3,).

    Args:
        strength: standard deviation of the factor of each component; 0.1 in Facebook's Torch code. White is 1.
        seed: int32 tensor of shape (2,).
    """
    factors = strength * tf.random.stateless_normal((3,), fold(seed, 3)) * DEVIATIONS
    return tf.linalg.matvec(tf.constant(DIRECTIONS), factors)


def change_colours(image, matrix, offset):
    """Returns `image @ matrix + offset`: float32 (height, width, 3); `matrix` is (3, 3), `offset` (3,)."""
    # Of one pixel at a time TensorFlow takes four times as long as of eight.
    pixels = math.gcd(image.shape[0] * image.shape[1], 8)
    matrix = tf.reshape(tf.einsum("ab,ij->aibj", tf.eye(pixels), matrix), (3 * pixels, 3 * pixels))
    changed = tf.nn.bias_add(tf.reshape(image, (-1, 3 * pixels)) @ matrix, tf.tile(offset, (pixels,)))
    return tf.reshape(changed, image.shape)


def _by_pillow(encoded):
    return np.asarray(read_image(io.BytesIO(encoded), 3))


def _uniform(seed, i, shape=()):
    return tf.random.stateless_uniform(shape, fold(seed, i))


def _between(part, low, high):
    return low + part * (high - low)


def _pixels(length):
    return tf.maximum(tf.cast(tf.round(length), "int32"), 1)


def _placed(size, shape, part):
    room = tf.cast(shape - size + 1, "float32")
    return tf.concat([tf.cast(part * room, "int32"), size], 0)
