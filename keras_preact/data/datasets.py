"""Data sets for classification: arrays in memory, and photographs that stay where they are until they are used.

What an epoch of training holds follows from (seed, epoch) alone, so that an interrupted run goes on with the very
batches it would have seen.
"""
import csv
import dataclasses
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np

from keras_preact._support.paths import existing, local
from keras_preact.data.arrays import CLASS_NAMES, Data, from_arrays, from_npz
from keras_preact.data.batches import batches_of
from keras_preact.data.preprocessing import LABELS
from keras_preact.data.streams import Files, Records, Stream, naming_unreadable, read_views, tensorflow

# Names of the folders of a split, and of the values in the column "split" of a CSV file, in lower case.
SPLITS = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}
COLUMNS = ("file", "label", "split")


def load(source, size=None, known=None):
    """Returns what is in `source`: `Data`, or a `Stream` where images differ in size.

    Args:
        source: one of the two; (train, test), each a pair of arrays (images, labels), as `keras.datasets` has them, or
            a `tf.data.Dataset` or Keras data set of such pairs; a dict, or the path of an .npz file, of the four arrays
            `ARRAYS`, and of class_names or label_names where the classes have names; the path of a folder of class
            folders of images, or of a CSV file with the columns file, label and perhaps split; or the name of a
            TensorFlow data set that is prepared on this machine. Labels are numbers from 0, or names.
        size: (height, width) to resize and crop images that differ in size to, all of them in memory, as `Data`.
        known: the classes of a network that is to be measured. The test images then suffice: one such pair or data set,
            two of the arrays, a folder `test` alone.

    Raises:
        ValueError: nothing of that name, arrays that do not belong together, labels outside the classes, empty class
            folders, images that cannot be read.
    """
    if isinstance(source, (Data, Stream)):
        data = source
    elif isinstance(source, dict):
        data = from_arrays("arrays", source, known=known)
    elif isinstance(source, (str, os.PathLike)):
        data = _from_path(source, known)
    else:
        data = from_arrays("arrays", _arrays_of(source, known), known=known)
    return _in_memory(data, size) if size and isinstance(data, Stream) else data


def _from_path(source, known):
    path = local("data", source)
    if path.suffix == ".npz":
        return from_npz(path, known)
    if path.suffix == ".csv":
        return from_csv(path, known)
    return from_folder(path, known) if path.is_dir() else from_tfds(str(source))


def _arrays_of(source, known):
    """Returns a dict of the arrays in (train, test), or of those of the test images that `source` is itself."""
    parts = {"test": source} if known and (_is_pair(source) or _is_dataset(source)) else None
    if parts is None and isinstance(source, (tuple, list)) and len(source) == 2:
        parts = dict(zip(("train", "test"), source))
    if parts is None or not all(_is_pair(part) or _is_dataset(part) for part in parts.values()):
        raise ValueError(
            "`data` must be (x_train, y_train), (x_test, y_test), a dict of these arrays, two data sets of images and "
            f"labels, a path, or the name of a TensorFlow data set. Received: {type(source).__name__}"
        )
    arrays = {}
    for part, given in parts.items():
        images, labels = given if _is_pair(given) else _gathered(given)
        arrays |= {f"x_{part}": images, f"y_{part}": labels}
    # Keras's image_dataset_from_directory tells them.
    train, test = (list(getattr(parts.get(part, source), CLASS_NAMES[0], None) or ()) for part in SPLITS)
    if train and test and test != train:
        arrays["y_test"] = _in_order_of(train, test, np.asarray(arrays["y_test"]))
    return arrays | ({CLASS_NAMES[0]: train} if train else {})


def _in_order_of(train, test, labels):
    """Returns the labels of test images, numbers or one-hot rows whose classes are `test`, by the classes `train`."""
    if sorted(train) != sorted(test):
        raise ValueError(f"The two data sets must have the same `class_names`. Received: {train} and {test}")
    if labels.ndim == 2 and labels.shape[1] == len(test):
        return labels[:, [test.index(name) for name in train]]
    return np.array([train.index(name) for name in test])[labels] if labels.dtype.kind in "iu" else labels


def _is_pair(part):
    return isinstance(part, (tuple, list)) and len(part) == 2 and hasattr(part[0], "shape")


def _is_dataset(part):
    others = isinstance(part, (str, os.PathLike, dict, tuple, list)) or hasattr(part, "shape")
    return isinstance(part, keras.utils.PyDataset) or isinstance(part, Iterable) and not others


def _gathered(dataset):
    """Returns (images, labels) of all batches, or of all single examples, of a data set."""
    images, labels = [], []
    for batch in batches_of(dataset, "`data`"):
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise ValueError(f"A data set must yield (images, labels). Received: {type(batch).__name__}")
        x, y = map(keras.ops.convert_to_numpy, batch[:2])
        single = x.ndim == 3
        images.append(x[None] if single else x)
        labels.append(y[None] if single else y)
    if len({x.shape[1:] for x in images}) != 1:
        raise ValueError("The images of a data set must have one size, and be one or more: batch them at one size.")
    return np.concatenate(images), np.concatenate(labels)


def for_recipe(source, recipe, config):
    """Returns the `Data` or `Stream` in `source` as `recipe` trains the network of `config` on it.

    Raises:
        ValueError: as `load`, a recipe for photographs of any size where the images have one size already, or one with
            RandAugment for images of other channels than one or three.
    """
    size = (recipe.size, recipe.size) if recipe.size else config.input_size
    if recipe.augmentation == "pad_crop":
        data = load(source, size)
        channels = data.image_shape[-1]
        if recipe.randaugment and channels not in (1, 3):
            raise ValueError(f"`randaugment` changes images of 1 or 3 channels. Received: {channels} in {data.name}")
        return data
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
    return dataclasses.replace(data, preprocessing=measured, notes=stream.notes)


def from_tfds(name):
    """Returns the `Data`, or the `Stream`, of a TensorFlow data set that is prepared on this machine."""
    what = f"{name!r} is neither an .npz file nor a folder; a TensorFlow data set"
    _require(what, "tensorflow_datasets", "tensorflow")
    tensorflow()
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
    except ValueError as error:  # with lists of what there is, and of what a name may be
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


def from_folder(path, known=None):
    """Returns the `Stream` of a folder of class folders of images, or of such folders for training and testing.

    Those are named train or training, and test, val, valid or validation, the first of them that is there, in any case.
    Without them every fifth image of a class, by name, is a test image. A network whose classes are `known` is measured
    on a folder for testing alone, too.

    Raises:
        ValueError: no class folders, or one that is empty or has other things than files.
    """
    path = local("data", path)
    folders = {entry.name.lower(): path / entry.name for entry in os.scandir(path) if entry.is_dir()}
    roots = {part: next((folders[name] for name in names if name in folders), None) for part, names in SPLITS.items()}
    if known and roots["test"] and list(folders.values()) == [roots["test"]]:
        del roots["train"]
    elif not all(roots.values()):
        roots = {None: path}
    labels = _class_folders(next(iter(roots.values())))
    if any(_class_folders(root) != labels for root in roots.values()):
        raise ValueError(f"{' and '.join(map(str, roots.values()))} must have folders for the same classes.")
    files = {part: {label: _files(root / label) for label in labels} for part, root in roots.items()}
    return _stream(path.resolve().name, labels, files, known)  # the name of "." is empty


def from_csv(path, known=None):
    """Returns the `Stream` of the image files that a CSV file lists, by paths relative to its folder.

    It has a line of headings. The column `file` has the paths, `label` the names of the classes, and `split`, which may
    be left out, train or test (or val, valid, validation). Without it every fifth image of a class is a test image. A
    network whose classes are `known` is measured on test images alone, too.

    Raises:
        ValueError: it has no such columns or other splits, or lists files that are not there.
    """
    path = existing("data", path)
    part_of = {name: part for part, names in SPLITS.items() for name in names} | {None: None}
    files, labels = {}, set()
    for line, row in enumerate(_rows(path), 2):
        split, file = row["split"] and row["split"].strip().lower(), path.parent / row["file"]
        if split not in part_of:
            raise ValueError(f"The column split must have train or test. Received: {split!r} in line {line} of {path}")
        if not file.is_file():
            raise ValueError(f"The column file must have paths relative to {path.parent}. There is no {file}")
        files.setdefault(part_of[split], {}).setdefault(row["label"], []).append(file)
        labels.add(row["label"])
    if set(files) not in ({None}, set(SPLITS)) and not (known and set(files) == {"test"}):
        raise ValueError(f"{path} must list images to train and to test with, or have no column split.")
    return _stream(path.stem, tuple(sorted(labels)), files, known)


def _rows(path):
    """Returns the lines of a CSV file as dicts of `COLUMNS`."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a CSV file in UTF-8: {error}") from error
    *needed, split = COLUMNS
    for line, row in enumerate(rows, 2):
        if not all(row.get(column) for column in needed):
            raise ValueError(
                "A CSV file must have the columns file and label, under headings of these names. One is not in line "
                f"{line} of {path}"
            )
    if not rows:
        raise ValueError(f"A CSV file must have a line of headings, and one for each image. {path} has no images.")
    return [row | {split: row.get(split)} for row in rows]


def _stream(name, labels, files, known=None):
    """Returns the `Stream` of `files`, {"train", "test", or None before they are split: {label: files}}."""
    notes, parts = (), {"train": Files((), ())}
    if None in files:
        notes = f"Every fifth image of each class is a test image: {name} does not say which are.",
        files = {
            part: {label: _fifth(of_class, part == "test") for label, of_class in files[None].items()}
            for part in SPLITS
        }
    elif "train" not in files and set(labels) <= set(known):
        labels = tuple(known)
    for part, of_class in files.items():
        empty = [label for label in labels if not of_class.get(label)]
        if empty and len(files) > 1 or len(empty) == len(labels):
            raise ValueError(f"The class {empty[0]} of {name} has no images to {part} with.")
        parts[part] = Files(*zip(*(
            (file, number) for number, label in enumerate(labels) for file in of_class.get(label, ())
        )))
    return Stream(name, **parts, labels=labels, notes=notes)


def _fifth(files, test):
    """Returns every fifth file, or the others."""
    return [file for i, file in enumerate(files) if (i % 5 == 4) == test]


def _files(folder):
    entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    others = [entry.path for entry in entries if not entry.is_file()]
    if others:
        raise ValueError(
            f"A class folder must hold image files alone; {others[0]} is a folder, a pipe or a broken link"
            + (f", and {len(others) - 1} more are." if len(others) > 1 else ".") + " Move it elsewhere."
        )
    return sorted(Path(entry.path) for entry in entries)


def _class_folders(path):
    labels = tuple(sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and entry.name[0] != "."))
    if not labels:
        raise ValueError(f"{path} must hold a folder of images for each class, and has no folders.")
    return labels
