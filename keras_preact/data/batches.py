"""Batches: those of users' data sets, and those of images in memory, shuffled, cropped, flipped and mixed."""
import keras
import numpy as np

from keras_preact.data.preprocessing import normalize, to_data_format
from keras_preact.data.streams import one_hot


def batches_of(dataset, name):
    """Yields the batches of a data set that `fit` takes: a `tf.data.Dataset`, a `PyDataset`, or any iterable of them.

    Raises:
        ValueError: it never ends, as `name` is told.
    """
    if isinstance(dataset, keras.utils.PyDataset):
        return (dataset[i] for i in range(len(dataset)))
    if hasattr(dataset, "cardinality") and int(dataset.cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
        raise ValueError(f"{name} must end, and this data set repeats itself: give its .take(batches).")
    return iter(dataset)


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


def mix_up(images, targets, alpha, rng):
    """Mixes each image and target with another one, by a factor of Beta(alpha, alpha) (Zhang et al. 2018)."""
    factor, other = np.float32(rng.beta(alpha, alpha)), rng.permutation(len(images))
    return factor * images + (1 - factor) * images[other], factor * targets + (1 - factor) * targets[other]


class _Batches(keras.utils.PyDataset):
    """Batches that Keras asks for in threads of its own.

    Where it does not, it leaves the autotuning of tf.data on, whose thread sleeps for times that double; the end of
    each pass may wait for that thread as long as the whole pass took.
    """

    def __init__(self):
        super().__init__(workers=2)


class TestBatches(_Batches):
    """Batches of `batch` images with their one-hot targets; the last one may be smaller."""

    def __init__(self, images, labels, classes, batch):
        super().__init__()
        self.images, self.labels, self.classes, self.batch = images, labels, classes, batch

    def __len__(self):
        return -(-len(self.images) // self.batch)

    def __getitem__(self, i):
        part = slice(i * self.batch, (i + 1) * self.batch)
        return self.images[part], one_hot(self.labels[part], self.classes)


class TrainingBatches(_Batches):
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
        self.classes = len(data.labels)
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
        rng = np.random.default_rng([self.seed, self.epoch, 1 + i])  # with 0 that of the permutation
        images = crop_and_flip(self.images[chosen], recipe.padding, rng)
        targets = one_hot(self.labels[chosen], self.classes, *recipe.target_values(self.classes))
        if recipe.cutout:
            images = cut_out(images, recipe.cutout, rng)
        if recipe.mixup:
            images, targets = mix_up(images, targets, recipe.mixup, rng)
        return to_data_format(share(images, self.part)), share(targets, self.part)

    def on_epoch_end(self):
        self.epoch += 1


def share(array, part):
    """Returns one of several equal parts; `part` is (index, count)."""
    index, count = part
    size = len(array) // count
    return array[index * size:(index + 1) * size]
