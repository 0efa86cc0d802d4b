"""Data sets for classification, in memory: from .npz files, TensorFlow Datasets and folders of images.

What an epoch of training holds follows from (seed, epoch) alone, so that an interrupted run goes on with the very
batches it would have seen.
"""
import dataclasses
import importlib.util
import os
from pathlib import Path

import keras
import numpy as np

from keras_preact.preprocessing import LABELS, Preprocessing, load_image, normalize

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
HOLDOUT = 5000


@dataclasses.dataclass(frozen=True)
class Data:
    """Images and labels to train and test on.

    Args:
        name: of the data set.
        x_train, x_test: uint8 images of shape (n, height, width, channels).
        y_train, y_test: integer labels of shape (n,).
        labels: the name of each class.
        preprocessing: mean and std of the training images, and their size.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    labels: tuple
    preprocessing: Preprocessing

    def hold_out(self, images=HOLDOUT):
        """Returns the same with the last `images` training images as test images: what hyper-parameters are chosen on.

        Raises:
            ValueError: there are not that many training images.
        """
        if not 0 < images < len(self.x_train):
            raise ValueError(
                f"`images` must leave some of the {len(self.x_train)} training images to train on. Received: {images}"
            )
        return dataclasses.replace(
            self, name=f"{self.name}-holdout{images}",
            x_train=self.x_train[:-images], y_train=self.y_train[:-images],
            x_test=self.x_train[-images:], y_test=self.y_train[-images:],
        )


# What published weights are trained with; other data sets are measured when they are loaded.
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def load(source, size=None):
    """Returns the `Data` in `source`.

    Args:
        source: a `Data`; a dict, or the path of an .npz file, of x_train, y_train, x_test and y_test; the path of a
            folder of class folders of images; or the name of a TensorFlow data set that is prepared on this machine.
        size: (height, width) to resize and crop the images of a folder to; it is needed there alone.

    Raises:
        ValueError: nothing of that name, arrays that do not belong together, labels outside the classes, empty class
            folders, images that cannot be read.
    """
    if isinstance(source, Data):
        return source
    if isinstance(source, dict):
        return from_arrays("arrays", source)
    path = Path(source)
    if path.suffix == ".npz":
        return from_npz(path)
    if path.is_dir():
        return from_folder(path, size)
    return from_tfds(str(source))


def from_npz(path):
    """Returns the `Data` of an .npz file; a file named after a known data set takes its labels and statistics."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no data file {path}")
    with np.load(path, allow_pickle=False) as file:
        return from_arrays(path.stem, dict(file))


def from_arrays(name, arrays, labels=None):
    """Returns a `Data` of the four arrays in the dict `arrays`, once they have been checked."""
    missing = [array for array in ARRAYS if array not in arrays]
    if missing:
        raise ValueError(f"Data must hold {', '.join(ARRAYS)}. {name} has no {', '.join(missing)}.")
    arrays = {array: np.asarray(arrays[array]) for array in ARRAYS}
    labels = labels or LABELS.get(name) or tuple(str(i) for i in range(int(arrays["y_train"].max()) + 1))
    for split in ("train", "test"):
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if x.ndim != 4 or x.dtype != np.uint8:
            raise ValueError(
                f"x_{split} must be uint8 images of shape (n, height, width, channels). "
                f"Received: {x.dtype} of shape {x.shape} in {name}"
            )
        if y.shape in ((len(x), 1), (len(x),)):
            y = y.reshape(-1)
        if y.shape != (len(x),) or y.dtype.kind not in "iu":
            raise ValueError(
                f"y_{split} must be an integer label for each of the {len(x)} images. "
                f"Received: {y.dtype} of shape {y.shape} in {name}"
            )
        wrong = np.flatnonzero((y < 0) | (y >= len(labels)))
        if len(wrong):
            raise ValueError(
                f"Labels must lie between 0 and {len(labels) - 1}. Received: {y[wrong[0]]} as y_{split}[{wrong[0]}] "
                f"in {name}, and {len(wrong) - 1} more"
            )
        arrays[f"y_{split}"] = y.astype("int32")
    x = arrays["x_train"]
    mean, std = STATISTICS.get(name) or _statistics(x)
    return Data(name, **arrays, labels=tuple(labels), preprocessing=Preprocessing(mean, std, x.shape[1:3]))


def _statistics(images):
    """Mean and standard deviation of each channel, of pixel values from 0 to 1, rounded to four digits."""
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(1)
    std = np.sqrt(counts @ values**2 / counts.sum(1) - mean**2)
    return tuple(round(float(m), 4) for m in mean), tuple(max(round(float(s), 4), 1e-4) for s in std)


def from_tfds(name):
    """Returns the `Data` of a TensorFlow data set whose images have one size, as prepared on this machine."""
    missing = [module for module in ("tensorflow_datasets", "tensorflow") if not importlib.util.find_spec(module)]
    if missing:
        raise ValueError(
            f"{name!r} is neither an .npz file nor a folder, and to read it as a TensorFlow data set "
            f"{' and '.join(missing)} must be installed: pip install 'keras_preact[training]'."
        )
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise ValueError(f"There is no .npz file, no folder and no TensorFlow data set named {name!r}.") from error
    missing = {"train", "test"} - set(builder.info.splits)
    if missing or not builder.data_path.exists():
        raise ValueError(
            f"The TensorFlow data set {name!r} is not prepared in {builder.data_path}. Prepare it once with network "
            f"access: python -c \"import tensorflow_datasets as tfds; tfds.load('{name}')\""
        )
    if any(side is None for side in builder.info.features["image"].shape):
        raise ValueError(f"The images of {name!r} differ in size; export them as a folder of class folders.")
    arrays = {}
    for split in ("train", "test"):
        loaded = tfds.as_numpy(tfds.load(name, split=split, batch_size=-1, as_supervised=True, download=False))
        arrays[f"x_{split}"], arrays[f"y_{split}"] = loaded
    return from_arrays(name, arrays, LABELS.get(name) or tuple(builder.info.features["label"].names))


def from_folder(path, size):
    """Returns the `Data` of a folder of class folders of images, or of such folders named train and test (or val).

    Without the split every fifth image of a class, by name, is a test image.

    Raises:
        ValueError: no class folders, an empty one, `size` missing, or images that cannot be read; these are named.
    """
    path = Path(path)
    if size is None:
        raise ValueError(f"Images of a folder need a size to be brought to: give `size` for {path}.")
    test = next((path / name for name in ("test", "val") if (path / name).is_dir()), None)
    split = test is not None and (path / "train").is_dir()
    files = {"train": [], "test": []}
    labels = _classes(path / "train" if split else path)
    for part in files:
        root = {"train": path / "train", "test": test}[part] if split else path
        if _classes(root) != labels:
            raise ValueError(f"{path / 'train'} and {root} must have folders for the same classes.")
        for label, name in enumerate(labels):
            of_class = sorted(file for file in (root / name).iterdir() if not file.name.startswith("."))
            if not split:
                of_class = [file for i, file in enumerate(of_class) if (i % 5 == 4) == (part == "test")]
            if not of_class:
                raise ValueError(f"The class folder {root / name} has no images to {part} with.")
            files[part] += [(file, label) for file in of_class]
    arrays, unreadable = {}, []
    for part, pairs in files.items():
        images = []
        for file, _ in pairs:
            try:
                images.append(load_image(file, Preprocessing((0.0,), (1.0,), size)))
            except OSError:
                unreadable.append(file)
        if not unreadable:
            arrays[f"x_{part}"] = np.stack(images)
            arrays[f"y_{part}"] = np.array([label for _, label in pairs])
    if unreadable:
        named = "\n  ".join(map(str, unreadable[:20]))
        raise ValueError(f"{len(unreadable)} files in {path} cannot be read as images; remove them:\n  {named}")
    return from_arrays(path.name, arrays, labels)


def _classes(path):
    labels = tuple(sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and entry.name[0] != "."))
    if not labels:
        raise ValueError(f"{path} must hold a folder of images for each class, and has no folders.")
    return labels


def crop_and_flip(images, padding, rng):
    """Returns `images` (n, height, width, channels), padded by zeros, cropped back at random, half of them flipped."""
    n, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    top, left = rng.integers(0, 2 * padding + 1, (2, n))
    columns = np.arange(width)[None] + left[:, None]
    flip = rng.random(n) < 0.5
    columns[flip] = columns[flip, ::-1]
    rows = np.arange(height)[None] + top[:, None]
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def cut_out(images, side, rng):
    """Sets, in each image, a square of zeros whose centre lies anywhere in it (DeVries and Taylor 2017); in place."""
    n, height, width, _ = images.shape
    top, left = rng.integers(0, height, n) - side // 2, rng.integers(0, width, n) - side // 2
    for image, t, s in zip(images, top, left):
        image[max(t, 0):t + side, max(s, 0):s + side] = 0
    return images


def mix_up(images, targets, alpha, rng):
    """Mixes each image and target with another one, by a factor of Beta(alpha, alpha) (Zhang et al. 2018)."""
    factor, other = np.float32(rng.beta(alpha, alpha)), rng.permutation(len(images))
    return factor * images + (1 - factor) * images[other], factor * targets + (1 - factor) * targets[other]


class TrainingBatches(keras.utils.PyDataset):
    """Shuffled, augmented batches: normalized images and one-hot targets. A last batch that is not full is left out.

    Args:
        data: a `Data`.
        recipe: a `Recipe`, for its batch size and augmentation.
        seed: with the number of the epoch it determines everything.
        epoch: to start with, from 0.
        part: (index, count): which of so many equal parts of each batch.
    """

    def __init__(self, data, recipe, seed, epoch=0, part=(0, 1)):
        super().__init__()
        self.images, self.labels = normalize(data.x_train, data.preprocessing, "channels_last"), data.y_train
        self.targets = np.eye(len(data.labels), dtype="float32")
        self.targets = self.targets * (1 - recipe.label_smoothing) + recipe.label_smoothing / len(data.labels)
        self.recipe, self.seed, self.epoch, self.part = recipe, seed, epoch, part
        self._order = (None, None)

    def __len__(self):
        return len(self.images) // self.recipe.batch_size

    def __getitem__(self, i):
        recipe = self.recipe
        if self._order[0] != self.epoch:
            rng = np.random.default_rng([self.seed, self.epoch])
            self._order = self.epoch, rng.permutation(len(self.images))
        chosen = self._order[1][i * recipe.batch_size:(i + 1) * recipe.batch_size]
        rng = np.random.default_rng([self.seed, self.epoch, i])
        images = crop_and_flip(self.images[chosen], recipe.padding, rng)
        targets = self.targets[self.labels[chosen]]
        if recipe.cutout:
            images = cut_out(images, recipe.cutout, rng)
        if recipe.mixup:
            images, targets = mix_up(images, targets, recipe.mixup, rng)
        return to_data_format(_part(images, self.part)), _part(targets, self.part)

    def on_epoch_end(self):
        self.epoch += 1


def test_split(data, part=(0, 1)):
    """Returns the normalized test images and their one-hot targets, or one of several equal parts of them."""
    images = normalize(_part(data.x_test, part), data.preprocessing, "channels_last")
    return to_data_format(images), np.eye(len(data.labels), dtype="float32")[_part(data.y_test, part)]


def _part(array, part):
    index, count = part
    size = len(array) // count
    return array[index * size:(index + 1) * size]


def to_data_format(images):
    """Returns a batch of (n, height, width, channels) in the image data format Keras is set to."""
    return images.transpose(0, 3, 1, 2) if keras.config.image_data_format() == "channels_first" else images
