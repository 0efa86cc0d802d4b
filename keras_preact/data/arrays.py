"""Images of one size, in memory: what comes as arrays or in an .npz file, checked."""
import dataclasses
import hashlib
import zipfile
import zlib

import numpy as np

from keras_preact._support import kinds
from keras_preact._support.paths import existing
from keras_preact.data.batches import TestBatches, TrainingBatches, share
from keras_preact.data.preprocessing import LABELS, Preprocessing, normalize, to_data_format, views_of
from keras_preact.data.streams import held_out

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
CLASS_NAMES = "class_names", "label_names"
HOLDOUT = 5000
# What published weights are trained with; other data sets are measured when they are loaded.
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


@dataclasses.dataclass(frozen=True)
class Data:
    """Images of one size, in memory, to train and test on.

    Args:
        name: of the data set.
        x_train, x_test: uint8 images of shape (n, height, width, channels).
        y_train, y_test: integer labels of shape (n,).
        labels: the name of each class.
        preprocessing: mean and std of the training images, and their size; None without these.
        notes: what there is to know of what is measured on it, a sentence each.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    labels: tuple
    preprocessing: Preprocessing | None
    notes: tuple = ()

    @property
    def train_images(self):
        return len(self.x_train)

    @property
    def test_images(self):
        return len(self.x_test)

    @property
    def image_shape(self):
        """(height, width, channels)."""
        return self.x_train.shape[1:]

    def digest(self):
        """Returns a hash of all images and labels, by which a run knows its data."""
        found = hashlib.blake2b(digest_size=16)
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            found.update(np.ascontiguousarray(array))
        return found.hexdigest()

    def hold_out(self, images=HOLDOUT):
        """Returns the same with so many training images as test images: what hyper-parameters are chosen on.

        They are taken at even distances, so that of images in the order of their classes each has its share.

        Raises:
            ValueError: there are not that many training images.
        """
        held = held_out(self.train_images, images)
        return dataclasses.replace(
            self, x_train=self.x_train[~held], y_train=self.y_train[~held],
            x_test=self.x_train[held], y_test=self.y_train[held], notes=(),
        )

    def training(self, recipe, seed, epoch=0, part=(0, 1)):
        """Returns what `fit` trains on from `epoch` on, as `TrainingBatches`."""
        return {"x": TrainingBatches(self, recipe, seed, epoch, part)}

    def validation(self, batch, part=(0, 1)):
        """Returns what `fit` measures on: normalized test images and one-hot targets, or one of equal parts of them."""
        images = normalize(share(self.x_test, part), self.preprocessing, "channels_last")
        labels = share(self.y_test, part)
        return {"validation_data": TestBatches(to_data_format(images), labels, len(self.labels), batch)}

    def test_views(self, views, preprocessing, batch, crop=None):
        """Yields (uint8 images of shape (n, views, height, width, channels), labels) of the test images."""
        for start in range(0, self.test_images, batch):
            images, labels = self.x_test[start:start + batch], self.y_test[start:start + batch]
            yield views_of(images, views, crop or preprocessing.size), labels


def from_npz(path, known=None):
    """Returns the `Data` of an .npz file; a file named after a known data set takes its labels and statistics."""
    path = existing("data", path)
    return from_arrays(path.stem, _arrays_in(path), known=known)


def _arrays_in(path):
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            arrays = dict(found) if isinstance(found, np.lib.npyio.NpzFile) else None
            if arrays and not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("it holds other files than arrays")
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        remedy = f"Write it anew with np.savez(path, {', '.join(f'{array}=...' for array in ARRAYS)})."
        own = kinds.NPZ, kinds.ZIP
        raise kinds.unread(path, "an .npz file of plain arrays", own, error, remedy) from error
    if arrays is None:
        raise ValueError(f"{path} holds one array, as np.save writes it. Write {', '.join(ARRAYS)} by np.savez.")
    return arrays


def from_arrays(name, arrays, labels=None, known=None):
    """Returns a `Data` of the four arrays in the dict `arrays`, once they have been checked.

    Args:
        name: of the data set.
        arrays: the four of `ARRAYS`, and perhaps the names of the classes.
        labels: the names of the classes; default those in `arrays`, those of a known data set, or those that the labels
            are.
        known: the classes of a network that is to be measured. The test arrays then suffice.
    """
    alone = known and not {"x_train", "y_train"} & set(arrays)
    missing = [array for array in ARRAYS[2 * bool(alone):] if array not in arrays]
    if missing:
        raise ValueError(f"Data must hold {', '.join(ARRAYS)}. {name} has no {', '.join(missing)}.")
    found = {}
    for split in ("test",) if alone else ("train", "test"):
        x, y = (np.asarray(arrays[f"{array}_{split}"]) for array in "xy")
        x = _pixels(name, split, x)
        found[f"x_{split}"], found[f"y_{split}"] = x, _classes(name, split, len(x), y)
    if alone:
        found |= {f"{array}_train": found[f"{array}_test"][:0] for array in "xy"}
    shapes = [found[f"x_{split}"].shape[1:] for split in ("train", "test")]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"Training and test images must have one shape (height, width, channels). Received: {shapes[0]} and "
            f"{shapes[1]} in {name}. Resize them, or give a folder of image files, whose sizes may differ."
        )
    if len({found[f"y_{split}"].dtype.kind == "U" for split in ("train", "test")}) > 1:
        raise ValueError(f"Labels must be numbers or names in all of {name}. Received: numbers and names")
    labels = tuple(
        labels or _class_names(name, arrays) or LABELS.get(name) or _labels(name, found["y_train"], alone and known)
    )
    for split in ("train", "test"):
        found[f"y_{split}"] = _numbered(name, split, found[f"y_{split}"], labels)
    x = found["x_train"]
    statistics = STATISTICS.get(name) or (None if alone else _statistics(x))
    return Data(name, **found, labels=labels, preprocessing=statistics and Preprocessing(*statistics, x.shape[1:3]))


def _pixels(name, split, x):
    """Returns the images `x` as uint8; floats from 0 to 255, as Keras's loaders of folders have them, are rounded."""
    rounded = x.dtype.kind == "f" and x.size and 1 < x.max() <= 255 and x.min() >= 0
    if x.ndim != 4 or not x.size or not (rounded or x.dtype == np.uint8):
        raise ValueError(
            f"x_{split} must be images of shape (n, height, width, channels), one or more, of uint8 or of floats from "
            f"0 to 255, before any normalization. Received: {x.dtype} of shape {x.shape}"
            + (f" from {x.min():g} to {x.max():g}" if x.dtype.kind in "iuf" and x.size else "") + f" in {name}"
        )
    return np.rint(x).astype("uint8") if rounded else x


def _classes(name, split, images, y):
    """Returns the labels `y`, numbers or texts, of so many images, of shape (n,); one-hot rows become numbers."""
    if y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "iuf" and np.all(np.sort(y)[:, -2:] == (0, 1)):
        y = y.argmax(1)
    if y.shape == (images, 1):
        y = y.reshape(-1)
    y = y.astype("U") if y.dtype.kind == "S" else y
    if y.shape != (images,) or y.dtype.kind not in "iuU":
        raise ValueError(
            f"y_{split} must be a label for each of the {images} images: its class, numbered from 0, or its name. "
            f"Received: {y.dtype} of shape {y.shape} in {name}"
        )
    return y


def _numbered(name, split, y, labels):
    """Returns the labels `y` as int32 numbers of the classes `labels`."""
    if y.dtype.kind == "U":
        number = {label: i for i, label in enumerate(labels)}
        numbers, rule = np.array([number.get(text, -1) for text in y.tolist()], "int64"), f"be among {_some(labels)}"
    else:
        numbers, rule = y, f"lie between 0 and {len(labels) - 1}"
    wrong = np.flatnonzero((numbers < 0) | (numbers >= len(labels)))
    if len(wrong):
        raise ValueError(
            f"Labels must {rule}. Received: {y[wrong[0]]} as y_{split}[{wrong[0]}] in {name}, and {len(wrong) - 1} more"
        )
    return numbers.astype("int32")


def _some(labels):
    return ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")


def _class_names(name, arrays):
    """Returns the names of the classes that come with `arrays`, or None."""
    key = next((key for key in CLASS_NAMES if key in arrays), None)
    if key is None:
        return None
    names = np.asarray(arrays[key])
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) < max(len(names), 1):
        raise ValueError(
            f"{key} must be a text for each class, no two the same. Received: {names.dtype} of shape "
            f"{names.shape} in {name}"
        )
    return tuple(names.tolist())


def _labels(name, y, known):
    """Returns the names of classes that come without: those among the labels `y` of training, or their numbers.

    Each class up to the largest number must have a training image. Without these they are those that are `known`.
    """
    if known:
        return known if y.dtype.kind == "U" else tuple(map(str, range(len(known))))
    if y.dtype.kind == "U":
        return tuple(np.unique(y).tolist())
    numbers = np.unique(y)
    gap = np.flatnonzero(numbers[numbers >= 0] != np.arange(np.count_nonzero(numbers >= 0)))
    if len(gap):
        raise ValueError(
            f"y_train must number the classes from 0 without gaps. Received: no image of class {gap[0]}, and "
            f"{numbers[-1]} as the largest number, in {name}. Correct the labels; of classes without training images "
            f"name all in {CLASS_NAMES[0]}."
        )
    return tuple(map(str, range(max(int(numbers[-1]) + 1, 1))))


def _statistics(images):
    """Mean and standard deviation of each channel, of pixel values from 0 to 1, rounded to four digits."""
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(1)
    std = np.sqrt(counts @ values**2 / counts.sum(1) - mean**2)
    return tuple(round(float(m), 4) for m in mean), tuple(max(round(float(s), 4), 1e-4) for s in std)
