"""From image files and pixel values to the input of a network, and from its output to labels; pure functions.

Keras loads when one of them is called, and not for label sets and a `Preprocessing`.
"""
import csv
import dataclasses
import math
import os
import re
import struct
import warnings
from collections.abc import Mapping
from functools import cache
from numbers import Real
from pathlib import Path

import numpy as np

from keras_preact._support.checks import check_choice, check_count, is_count
from keras_preact._support.paths import local

AXES = {"channels_last": -1, "channels_first": -3}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
LARGEST = 10_000  # pixels on a side of what a network takes
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VIEWS = ("single", "flip", "ten_crop")
REACH = 3  # of the widest kernel, Lanczos's, in pixels of the smaller image
# EXIF's orientation and Pillow's name for what turns the image upright.
TRANSPOSED = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}
BITS, PHOTOMETRIC = 258, 262  # tags of TIFF
INTEGERS = "PNG", "PPM"  # formats whose 16 bits Pillow may have as 32

SMALL_LABELS = {
    "cifar10": tuple("""
        airplane automobile bird cat deer dog frog horse ship truck
    """.split()),
    "cifar100": tuple("""
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
        can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
        dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
        lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree
        pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea
        seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table
        tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman
        worm
    """.split()),
    "svhn": tuple("0123456789"),
}


IMAGENET_LABELS = {"imagenet": "name", "imagenet_wordnet_ids": "wordnet_id"}  # columns of imagenet.csv


class _LabelSets(Mapping):
    """{name: a label for each class}; ImageNet's are read when they are first asked for."""

    def __getitem__(self, name):
        return _imagenet_labels()[name] if name in IMAGENET_LABELS else SMALL_LABELS[name]

    def __iter__(self):
        return iter((*SMALL_LABELS, *IMAGENET_LABELS))

    def __len__(self):
        return len(SMALL_LABELS) + len(IMAGENET_LABELS)


@cache
def _imagenet_labels():
    with open(Path(__file__).with_name("imagenet.csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: tuple(row[column] for row in rows) for name, column in IMAGENET_LABELS.items()}


LABELS = _LabelSets()


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What a weight was trained with.

    Args:
        mean, std: of each channel, for pixel values from 0 to 1.
        size: (height, width) of the test crop in pixels, at most 10,000 each.
        crop: the part of the resized image's shorter side that the crop covers.
        interpolation: of the resizing: "nearest", "bilinear", "bicubic" or "lanczos".

    Raises:
        ValueError: values that are out of range, or not one for each channel.

    Example:

    >>> kp.Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3, size=(224, 224), crop=0.875).input_shape
    (224, 224, 3)
    """

    mean: tuple
    std: tuple
    size: tuple
    crop: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self):
        for field in ("mean", "std", "size"):
            object.__setattr__(self, field, tuple(np.ravel(getattr(self, field)).tolist()))
        numbers = all(isinstance(value, Real) for value in (*self.mean, *self.std))
        if not (
            0 < len(self.mean) == len(self.std) and numbers
            and all(0 <= value <= 1 for value in self.mean) and all(0 < value < math.inf for value in self.std)
        ):
            raise ValueError(
                "`mean` and `std` must have one value for each channel, of pixel values from 0 to 1 and not to 255: "
                f"`mean` from 0 to 1, `std` positive. Received: mean={self.mean}, std={self.std}"
            )
        if len(self.size) != 2 or not all(is_count(side) and side <= LARGEST for side in self.size):
            raise ValueError(
                f"`size` must be (height, width) in pixels, each from 1 to {LARGEST}. Received: {self.size}"
            )
        if not isinstance(self.crop, Real) or not 0 < self.crop <= 1:
            raise ValueError(f"`crop` must be a number above 0 and at most 1. Received: {self.crop!r}")
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)

    @property
    def input_shape(self):
        """Of one image, in the image data format that Keras is set to."""
        return image_shape(*self.size, len(self.mean))

    def of_input(self, shape):
        """Returns the same for images of `shape`, in the image data format that Keras is set to.

        A height or width of None stays what it is. One channel has the mean of all values; more channels have those of
        the first ones again.
        """
        # The places of height, width and channels in a shape.
        height, width, channels = (image_shape(0, 1, 2).index(i) for i in range(3))
        size = tuple(shape[axis] or side for axis, side in zip((height, width), self.size))
        count = shape[channels]

        def repeated(values):
            return (sum(values) / len(values),) if count == 1 else tuple(values[i % len(values)] for i in range(count))

        return dataclasses.replace(self, size=size, mean=repeated(self.mean), std=repeated(self.std))


def _scale_and_offset(preprocessing):
    """Returns what a pixel of each channel is multiplied by, and what is added then."""
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    return 1 / (255 * std), -mean / std


def layer(preprocessing):
    """Returns the built-in layer that normalizes images as `normalize` does."""
    import keras

    scale, offset = _scale_and_offset(preprocessing)
    if keras.config.image_data_format() == "channels_first":
        offset = offset.reshape(-1, 1, 1)  # Keras 3.15 does so with the scale alone
    return keras.layers.Rescaling(scale.tolist(), offset.tolist(), name="normalization", dtype="float32")


def for_model(preprocessing, model):
    """Returns the `Preprocessing` of images for `model`, whose network, inside it, wants them as `preprocessing` says.

    Where layers before the network normalize its images, it is that of pixels as they are; where they change them in
    another way that counts when the network is used, nobody knows it: None.
    """
    from keras import layers

    from keras_preact.networks.graph import NEUTRAL, entering

    others = layers.ZeroPadding2D, layers.BatchNormalization, layers.Permute, layers.Activation, layers.ReLU
    if not all(isinstance(layer, (*NEUTRAL, *_normalizing(), *others)) for layer in entering(model)):
        return None
    return of_pixels(preprocessing) if normalizes(model) else preprocessing


def of_pixels(preprocessing):
    """Returns the `Preprocessing` that leaves pixel values as they are."""
    count = len(preprocessing.mean)
    return dataclasses.replace(preprocessing, mean=(0,) * count, std=(1 / 255,) * count)


def normalizes(model):
    """Returns whether layers of `model` normalize its images."""
    from keras_preact.networks.graph import entering

    return any(isinstance(layer, _normalizing()) for layer in entering(model))


def _normalizing():
    from keras import layers

    return layers.Rescaling, layers.Normalization


def check_for(preprocessing, model):
    """Raises ValueError where `model` would normalize images again that `preprocessing` normalizes."""
    pixels = of_pixels(preprocessing)
    if (pixels.mean, pixels.std) != (preprocessing.mean, preprocessing.std) and normalizes(model):
        raise ValueError(
            f"{model.name} normalizes its images itself, which would be done twice: its `preprocessing` must have the "
            f"mean 0 and the std 1/255 for each channel. Received: {preprocessing}"
        )


def normalize(x, preprocessing, data_format=None):
    """Returns (x / 255 - mean) / std as float32, without changing `x`.

    Args:
        x: array or tensor of pixel values from 0 to 255, uint8 or float, of shape (..., height, width, channels), or
            (..., channels, height, width) if the data format is "channels_first".
        preprocessing: a `Preprocessing`.
        data_format: default Keras's `image_data_format`.

    Raises:
        ValueError: no array or tensor, values of another kind or range, or a number of channels that `preprocessing`
            has no mean for.
    """
    import keras

    data_format = data_format or keras.config.image_data_format()
    check_choice("data_format", data_format, AXES)
    shape, channels, axis = shape_of(x), len(preprocessing.mean), AXES[data_format]
    if shape is not None and (len(shape) < 3 or shape[axis] not in (channels, None)):
        raise ValueError(
            f"Images must have {channels} channels on axis {axis} (data format {data_format!r}). "
            f"Received an array of shape {shape}."
        )
    _check_values(x)
    scale, offset = (v.astype("float32").reshape((-1,) + (1,) * (-1 - axis)) for v in _scale_and_offset(preprocessing))
    if isinstance(x, np.ndarray):
        return x.astype("float32") * scale + offset
    return keras.ops.cast(x, "float32") * scale + offset


def shape_of(images):
    """Returns the shape of an array or a tensor, or None of a tensor whose number of axes is not known yet.

    Raises:
        ValueError: neither of them.
    """
    if not (hasattr(images, "shape") and hasattr(images, "dtype")):
        raise ValueError(
            "Images must be an array or a tensor: load_image(file, model) reads a file as the model takes it, "
            "np.asarray(image.convert('RGB')) makes an array of Pillow's image, and np.stack(images) of a list of "
            f"arrays. Received: {type(images).__name__}"
        )
    # A shape of unknown rank has no length, and a property of TensorFlow's says so.
    return None if getattr(images.shape, "rank", 0) is None else tuple(images.shape)


def _check_values(x):
    """Raises ValueError where `x` cannot hold pixel values from 0 to 255, and warns where it hardly does."""
    dtype = str(getattr(x.dtype, "name", x.dtype))
    if not re.search(r"(int|float)\d+$", dtype) or dtype.endswith("uint16"):
        raise ValueError(
            "Pixel values must be integers or floats from 0 to 255. Of 16 bits, whose white is 65535, give x / 257; "
            f"of 8 bits in a wider type x.astype('uint8'). Received: {dtype}"
        )
    if not isinstance(x, np.ndarray) or not x.size or dtype == "uint8":
        return
    low, high = x.min(), x.max()
    if "int" in dtype and not 0 <= low <= high <= 255:
        raise ValueError(f"Pixel values must lie between 0 and 255. Received: {dtype} from {low} to {high}")
    # Resizing by wide kernels reaches beyond white, never so far.
    if "float" in dtype and not (high == low == 0 or 0 <= low <= high <= 2 * 255 and high > 1):
        warnings.warn(
            f"Pixel values from 0 to 255 are expected, and these lie between {low:.4g} and {high:.4g}: "
            "they look preprocessed or scaled already, or of more than 8 bits.",
            stacklevel=4,
        )


def decode(predictions, labels, top=5):
    """Returns, for each row of `predictions`, its `top` best (label, probability) pairs, best first.

    Args:
        predictions: array or tensor of shape (batch, classes).
        labels: a list, tuple or array with a name for each class.
        top: how many pairs; all if there are fewer.

    Raises:
        ValueError: labels without an order, no count, or predictions that are no numbers or not of shape (batch,
            number of labels).
    """
    import keras

    if not isinstance(labels, (list, tuple, np.ndarray)):
        raise ValueError(f"Labels must be a list with one for each class, in their order. Received: {labels!r}")
    check_count("top", top)
    predictions = np.asarray(keras.ops.convert_to_numpy(predictions))
    if predictions.ndim != 2 or predictions.shape[1] != len(labels):
        raise ValueError(
            f"`predictions` must be of shape (batch, {len(labels)}), a column for each label. "
            f"Received shape: {predictions.shape}"
        )
    predictions = predictions.astype("float64")  # of unsigned integers the negative is none
    if np.isnan(predictions).any():
        raise ValueError(
            "`predictions` must be numbers. Received: NaN, as a network gives whose weights or images are none"
        )
    best = np.argsort(-predictions, axis=1, kind="stable")[:, :top]
    return [[(labels[i], float(row[i])) for i in indices] for row, indices in zip(predictions, best)]


def load_image(file, preprocessing):
    """Returns the image in `file`, resized and cropped at its centre, as uint8 of shape (height, width, channels).

    Of 16 bits the upper eight count, as for every decoder that gives eight; floats from 0 to 1 become 0 to 255. What is
    transparent keeps the colour that it has in the file; of several images the first counts.

    Args:
        file: path or binary file of any format Pillow reads; turned upright as its EXIF data say.
        preprocessing: a `Preprocessing`.

    Raises:
        ValueError: no path on this machine, and no file.
        OSError: no such file, not an image, integers of 32 bits or floats outside 0 to 1, whose white nobody knows, or
            more pixels than twice Pillow's `Image.MAX_IMAGE_PIXELS`.
    """
    return load_views(file, "single", preprocessing)[0]


def load_views(file, views, preprocessing, crop=None):
    """As `load_image`, of shape (views, height, width, channels): the crops of `views_of`, of the size `crop`."""
    return fit(read_image(file, len(preprocessing.mean)), preprocessing, views, crop)


def fit(image, preprocessing, views="single", crop=None):
    """Returns what `load_views` does, of an image that `read_image` returned."""
    (height, width), (rows, columns) = preprocessing.size, image.size[::-1]
    scale = max(height / rows, width / columns) / preprocessing.crop
    size = max(height, round(rows * scale)), max(width, round(columns * scale))
    crop, kernel = crop or preprocessing.size, preprocessing.interpolation
    return _stacked([_resized(image, size, corner, crop, kernel) for corner in corners(size, views, crop)], views)


def read_image(file, channels):
    """Returns the upright image in `file` as Pillow's, in its mode "L" for one channel and "RGB" for others."""
    from PIL import Image

    if isinstance(file, (str, os.PathLike)):
        file = local("file", file)
    elif not hasattr(file, "read"):
        raise ValueError(
            "`file` must be a path or a binary file; io.BytesIO(content) is one of bytes. "
            f"Received: {type(file).__name__}"
        )
    try:
        with Image.open(file) as image:
            image.load()
            orientation = _orientation(image.info.get("exif", b""))
            image.info.pop("transparency", None)  # Pillow warns where it is dropped
            # By way of RGB, as grey values of other modes are rounded in other ways.
            image = _eight_bits(image).convert("RGB")
    except Exception as error:  # each decoder of Pillow's has its own
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise  # of the system, whose errors name the file
        name = getattr(file, "name", file)
        named = f"{name}: " if isinstance(name, (str, os.PathLike)) else ""
        raise OSError(f"{named}Pillow cannot decode it: {error}") from error
    if orientation in TRANSPOSED:
        image = image.transpose(Image.Transpose[TRANSPOSED[orientation]])
    return image.convert("L") if channels == 1 else image


def _orientation(exif):
    """Returns what EXIF data say; Pillow's own `getexif` looks into XMP, too, as no other decoder does."""
    from PIL import Image

    found = Image.Exif()
    try:
        found.load(exif)
        return found.get(0x0112)
    except (SyntaxError, ValueError, struct.error):
        return None  # they are damaged


def _eight_bits(image):
    """Returns an image of at most eight bits for each channel; Pillow's `convert` would clip it at 255."""
    from PIL import Image

    kind = image.mode.partition(";")[0]
    if kind not in ("I", "F"):
        return image
    tags = image.tag_v2 if image.format == "TIFF" else {}
    values, bits = np.asarray(image), min(tags.get(BITS, (16,))[0], 16)
    what, most = ("Floats", 1) if kind == "F" else (f"{bits}-bit values", 2**bits - 1)
    known = image.mode != "I" or image.format in INTEGERS
    if not (known and values.min() >= 0 and values.max() <= most):
        raise ValueError(
            f"{what} must lie between 0 and {most}, its white. Received: {values.dtype} from {values.min()} to "
            f"{values.max()}; save it with 8 bits for each channel."
        )
    if tags.get(PHOTOMETRIC) == 0:  # white
        values = most - values
    return Image.fromarray((np.rint(255 * values) if kind == "F" else values >> bits - 8).astype("uint8"))


def _resized(image, size, corner, crop, interpolation):
    """Returns the crop at `corner` of Pillow's `image` resized to `size`, without resizing the rest, as uint8."""
    from PIL import Image

    kernel, cut, boxes = Image.Resampling[interpolation.upper()], [], []
    for before, after, first, side in zip(image.size[::-1], size, corner, crop):
        ratio = before / after
        start, stop = first * ratio, min((first + side) * ratio, before)
        # Pillow keeps boxes as float32: of a long image only the part that the kernels reach is handed over.
        margin = REACH * max(ratio, 1) + 1
        low, high = max(math.floor(start - margin), 0), min(math.ceil(stop + margin), before)
        cut.append((low, high))
        boxes.append((start - low, stop - low))
    (top, bottom), (left, right) = cut
    (above, below), (before, behind) = boxes
    height, width = crop
    image = image.crop((left, top, right, bottom))
    # Widths first, as TensorFlow's graph does; Pillow chooses an order that depends on the sizes.
    image = image.resize((width, bottom - top), kernel, (before, 0, behind, bottom - top))
    image = image.resize((width, height), kernel, (0, above, width, below))
    return np.asarray(image).reshape(height, width, -1)


def corners(size, views, crop):
    """Returns (top, left) of each crop of `views_of`, of images of this size."""
    below, right = size[0] - crop[0], size[1] - crop[1]
    centre = [(below // 2, right // 2)]
    return centre + [(0, 0), (0, right), (below, 0), (below, right)] if views == "ten_crop" else centre


def views_of(images, views, crop):
    """Returns the crops of images (..., height, width, channels) that are measured, on a new axis before the height.

    Args:
        images: array.
        views: "single", the central crop; "flip", that and its mirror image; "ten_crop", the centre and the four
            corners, each followed by its mirror image.
        crop: (height, width) of each.
    """
    found = corners(images.shape[-3:-1], views, crop)
    return _stacked([images[..., top:top + crop[0], left:left + crop[1], :] for top, left in found], views)


def _stacked(crops, views):
    if views != "single":
        crops = [view for crop in crops for view in (crop, crop[..., ::-1, :])]
    return np.stack(crops, -4)


def to_data_format(images, transpose=np.transpose):
    """Returns images (..., height, width, channels) in the image data format that Keras is set to."""
    import keras

    if keras.config.image_data_format() == "channels_last":
        return images
    axes = range(len(images.shape))
    return transpose(images, (*axes[:-3], axes[-1], *axes[-3:-1]))


def image_shape(height, width, channels):
    """Returns the shape of an image in the image data format that Keras is set to."""
    import keras

    first = keras.config.image_data_format() == "channels_first"
    return (channels, height, width) if first else (height, width, channels)
