"""Data sets for classification: arrays in memory, and photographs that stay where they are until they are used.

What an epoch of training holds follows from (seed, epoch) alone, so that an interrupted run goes on with the very
batches it would have seen.
"""
import dataclasses
import hashlib
import importlib.util
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from keras_preact._support import compat
from keras_preact._support.paths import local
from keras_preact.data.batches import TestBatches, TrainingBatches, share
from keras_preact.data.preprocessing import LABELS, Preprocessing, normalize, to_data_format, views_of
from keras_preact.data.streams import (
    Files,
    Records,
    Stream,
    held_out,
    naming_unreadable,
    read_views,
    tensorflow,
)

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
CLASS_NAMES = "class_names"
# Names of the folders of a split, in lower case.
SPLITS = ("train", "training"), ("test", "val", "valid", "validation")
HOLDOUT = 5000


@dataclasses.dataclass(frozen=True)
class Data:
    """Images of one size, in memory, to train and test on.

    Args:
        name: of the data set.
        x_train, x_test: uint8 images of shape (n, height, width, channels).
        y_train, y_test: integer labels of shape (n,).
        labels: the name of each class.
        preprocessing: mean and std of the training images, and their size.
        notes: what there is to know of what is measured on it, a sentence each.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    labels: tuple
    preprocessing: Preprocessing
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


# What published weights are trained with; other data sets are measured when they are loaded.
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def load(source, size=None):
    """Returns what is in `source`: `Data`, or a `Stream` where images differ in size.

    Args:
        source: one of the two; ((x_train, y_train), (x_test, y_test)), as `keras.datasets` has them; a dict, or the
            path of an .npz file, of these four arrays, and of class_names where the classes have names; the path of a
            folder of class folders of images; or the name of a TensorFlow data set that is prepared on this machine.
        size: (height, width) to resize and crop images that differ in size to, all of them in memory, as `Data`.

    Raises:
        ValueError: nothing of that name, arrays that do not belong together, labels outside the classes, empty class
            folders, images that cannot be read.
    """
    if isinstance(source, (Data, Stream)):
        data = source
    elif _is_pairs(source):
        (x_train, y_train), (x_test, y_test) = source
        data = from_arrays("arrays", dict(zip(ARRAYS, (x_train, y_train, x_test, y_test))))
    elif isinstance(source, dict):
        data = from_arrays("arrays", source)
    elif not isinstance(source, (str, os.PathLike)):
        raise ValueError(
            f"`data` must be (x_train, y_train), (x_test, y_test), a dict of {', '.join(ARRAYS)}, a path, or the name "
            f"of a TensorFlow data set. Received: {type(source).__name__}"
        )
    else:
        path = local("data", source)
        read = from_npz if path.suffix == ".npz" else from_folder if path.is_dir() else from_tfds
        data = read(str(source) if read is from_tfds else path)
    return _in_memory(data, size) if size and isinstance(data, Stream) else data


def _is_pairs(source):
    return isinstance(source, (tuple, list)) and len(source) == 2 and all(
        isinstance(part, (tuple, list)) and len(part) == 2 for part in source
    )


def for_recipe(source, recipe, config):
    """Returns the `Data` or `Stream` in `source` as `recipe` trains the network of `config` on it.

    Raises:
        ValueError: as `load`, or a recipe for photographs of any size where the images have one size already.
    """
    size = (recipe.size, recipe.size) if recipe.size else config.input_size
    if recipe.augmentation == "pad_crop":
        return load(source, size)
    data = load(source)
    if isinstance(data, Data):
        raise ValueError(
            f"augmentation={recipe.augmentation!r} crops photographs of any size, from a folder or a TensorFlow data "
            f"set; the images of {data.name} have one size: take a recipe with augmentation='pad_crop'."
        )
    _require(f"augmentation={recipe.augmentation!r}", "tensorflow")
    return dataclasses.replace(data, preprocessing=dataclasses.replace(data.preprocessing, size=size))


def batch_of(shape):
    """Returns how many test images of that shape are measured at a time: 500 of CIFAR's, fewer of large ones."""
    return max(500 * 32 * 32 // max(shape[0] * shape[1], 32 * 32), 50)


def _in_memory(stream, size):
    """Returns the `Data` of all its images, resized and cropped to `size`."""
    whole = dataclasses.replace(stream.preprocessing, size=size, crop=1.0)
    arrays = {}
    for part, source in (("train", stream.train), ("test", stream.test)):
        with naming_unreadable(stream):
            images, labels = zip(*read_views(source, "single", whole, 1000))
        arrays[f"x_{part}"], arrays[f"y_{part}"] = np.concatenate(images)[:, 0], np.concatenate(labels)
    data = from_arrays(stream.name, arrays, stream.labels)
    measured = dataclasses.replace(whole, mean=data.preprocessing.mean, std=data.preprocessing.std)
    return dataclasses.replace(data, preprocessing=measured)


def from_npz(path):
    """Returns the `Data` of an .npz file; a file named after a known data set takes its labels and statistics."""
    path = local("data", path)
    if not path.is_file():
        raise ValueError(f"There is no data file {path}")
    return from_arrays(path.stem, _arrays_in(path))


def _arrays_in(path):
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            arrays = dict(found) if isinstance(found, np.lib.npyio.NpzFile) else None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read as an .npz file of plain arrays; it may be truncated or damaged: {error}. Write it "
            f"anew with np.savez(path, {', '.join(f'{array}=...' for array in ARRAYS)})."
        ) from error
    if arrays is None:
        raise ValueError(f"{path} holds one array, as np.save writes it. Write {', '.join(ARRAYS)} by np.savez.")
    return arrays


def from_arrays(name, arrays, labels=None):
    """Returns a `Data` of the four arrays in the dict `arrays`, once they have been checked."""
    missing = [array for array in ARRAYS if array not in arrays]
    if missing:
        raise ValueError(f"Data must hold {', '.join(ARRAYS)}. {name} has no {', '.join(missing)}.")
    found = {}
    for split in ("train", "test"):
        x, y = (np.asarray(arrays[f"{array}_{split}"]) for array in "xy")
        found[f"x_{split}"], found[f"y_{split}"] = x, _checked(name, split, x, y)
    shapes = [found[f"x_{split}"].shape[1:] for split in ("train", "test")]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"Training and test images must have one shape (height, width, channels). Received: {shapes[0]} and "
            f"{shapes[1]} in {name}. Resize them, or give a folder of image files, whose sizes may differ."
        )
    labels = labels or _class_names(name, arrays) or LABELS.get(name) or _numbers(name, found["y_train"])
    for split in ("train", "test"):
        y = found[f"y_{split}"]
        wrong = np.flatnonzero((y < 0) | (y >= len(labels)))
        if len(wrong):
            raise ValueError(
                f"Labels must lie between 0 and {len(labels) - 1}. Received: {y[wrong[0]]} as y_{split}[{wrong[0]}] "
                f"in {name}, and {len(wrong) - 1} more"
            )
        found[f"y_{split}"] = y.astype("int32")
    x = found["x_train"]
    mean, std = STATISTICS.get(name) or _statistics(x)
    return Data(name, **found, labels=tuple(labels), preprocessing=Preprocessing(mean, std, x.shape[1:3]))


def _checked(name, split, x, y):
    """Returns the labels `y` of the images `x`, of shape (n,)."""
    if x.ndim != 4 or x.dtype != np.uint8 or not x.size:
        raise ValueError(
            f"x_{split} must be uint8 images of shape (n, height, width, channels), one or more. "
            f"Received: {x.dtype} of shape {x.shape} in {name}"
        )
    if y.shape == (len(x), 1):
        y = y.reshape(-1)
    if y.shape != (len(x),) or y.dtype.kind not in "iu":
        raise ValueError(
            f"y_{split} must be an integer label for each of the {len(x)} images, their classes numbered from 0. "
            f"Received: {y.dtype} of shape {y.shape} in {name}"
        )
    return y


def _class_names(name, arrays):
    """Returns the names of the classes that come with `arrays`, or None."""
    if CLASS_NAMES not in arrays:
        return None
    names = np.asarray(arrays[CLASS_NAMES])
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) < max(len(names), 1):
        raise ValueError(
            f"{CLASS_NAMES} must be a text for each class, no two the same. Received: {names.dtype} of shape "
            f"{names.shape} in {name}"
        )
    return tuple(names.tolist())


def _numbers(name, y):
    """Returns the labels of classes without names; each up to the largest number must have a training image."""
    numbers = np.unique(y)
    gap = np.flatnonzero(numbers[numbers >= 0] != np.arange(np.count_nonzero(numbers >= 0)))
    if len(gap):
        raise ValueError(
            f"y_train must number the classes from 0 without gaps. Received: no image of class {gap[0]}, and "
            f"{numbers[-1]} as the largest number, in {name}. Correct the labels; of classes without training images "
            f"name all in {CLASS_NAMES}."
        )
    return tuple(map(str, range(max(int(numbers[-1]) + 1, 1))))


def _statistics(images):
    """Mean and standard deviation of each channel, of pixel values from 0 to 1, rounded to four digits."""
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(1)
    std = np.sqrt(counts @ values**2 / counts.sum(1) - mean**2)
    return tuple(round(float(m), 4) for m in mean), tuple(max(round(float(s), 4), 1e-4) for s in std)


def from_tfds(name):
    """Returns the `Data`, or the `Stream`, of a TensorFlow data set that is prepared on this machine."""
    what = f"{name!r} is neither an .npz file nor a folder; a TensorFlow data set"
    _require(what, "tensorflow_datasets", "tensorflow")
    tensorflow()
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
    except compat.unknown_dataset() as error:
        raise ValueError(f"There is no .npz file, no folder and no TensorFlow data set named {name!r}.") from error
    test = next((split for split in _test_splits(name) if split in builder.info.splits), None)
    if not test or "train" not in builder.info.splits or not builder.data_path.exists():
        raise ValueError(
            f"The TensorFlow data set {name!r} is not prepared in {builder.data_path}, or has no splits to train and "
            "test on. Prepare it once with network access: "
            f"python -c \"import tensorflow_datasets as tfds; tfds.load('{name}')\""
        )
    features = builder.info.features
    image, label = [features[key] for key in builder.info.supervised_keys or ()] or (None, None)
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(f"The TensorFlow data set {name!r} must hold images and their classes. It has:\n{features}")
    labels = LABELS.get(builder.name) or tuple(label.names)
    if None in image.shape:
        return Stream(name, Records(builder, "train"), Records(builder, test), labels)
    arrays = {}
    for part, split in (("train", "train"), ("test", test)):
        loaded = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, as_supervised=True))
        arrays[f"x_{part}"], arrays[f"y_{part}"] = loaded
    return from_arrays(name, arrays, labels)


def _require(what, *modules):
    missing = [module for module in modules if not importlib.util.find_spec(module)]
    if missing:
        raise ValueError(f"{what} needs {' and '.join(missing)}: pip install 'keras_preact[training]'.")


def _test_splits(name):
    # The test images of ImageNet have no labels.
    return ("validation",) if name.startswith("imagenet2012") else ("test", "validation")


def from_folder(path):
    """Returns the `Stream` of a folder of class folders of images, or of such folders for training and testing.

    Those are named train or training, and test, val, valid or validation, the first of them that is there, in any case.
    Without them every fifth image of a class, by name, is a test image.

    Raises:
        ValueError: no class folders, or one that is empty or has other things than files.
    """
    path = local("data", path)
    folders = {entry.name.lower(): path / entry.name for entry in os.scandir(path) if entry.is_dir()}
    train, test = (next((folders[name] for name in names if name in folders), None) for names in SPLITS)
    split = train and test
    roots = {"train": train, "test": test} if split else {"train": path, "test": path}
    labels = _classes(roots["train"])
    if _classes(roots["test"]) != labels:
        raise ValueError(f"{roots['train']} and {roots['test']} must have folders for the same classes.")
    parts = {}
    for part, root in roots.items():
        files = []
        for label, name in enumerate(labels):
            of_class = _files(root / name)
            if not split:
                of_class = [file for i, file in enumerate(of_class) if (i % 5 == 4) == (part == "test")]
            if not of_class:
                raise ValueError(f"The class folder {root / name} has no images to {part} with.")
            files += [(file, label) for file in of_class]
        parts[part] = Files(*zip(*files))
    name = path.resolve().name  # that of "." is empty
    note = f"Every fifth image of each class, by name, is a test image: {name} has no folders train and test."
    return Stream(name, **parts, labels=labels, notes=() if split else (note,))


def _files(folder):
    entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    others = [entry.path for entry in entries if not entry.is_file()]
    if others:
        raise ValueError(
            f"A class folder must hold image files alone; {others[0]} is a folder, a pipe or a broken link"
            + (f", and {len(others) - 1} more are." if len(others) > 1 else ".") + " Move it elsewhere."
        )
    return sorted(Path(entry.path) for entry in entries)


def _classes(path):
    labels = tuple(sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and entry.name[0] != "."))
    if not labels:
        raise ValueError(f"{path} must hold a folder of images for each class, and has no folders.")
    return labels
