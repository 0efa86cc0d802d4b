"""Batches: those of users' data sets, and those of images in memory, shuffled, cropped, flipped and mixed."""
from collections.abc import Iterable

import keras
import numpy as np

from keras_preact.data.mixing import crop_and_flip, mix
from keras_preact.data.preprocessing import normalize, to_data_format
from keras_preact.data.randaugment import fill_of, rand_augment
from keras_preact.data.streams import one_hot


def batches_of(dataset, name):
    """Yields the batches of a data set that `fit` takes: a `tf.data.Dataset`, a `PyDataset`, or any iterable of them.

    Raises:
        ValueError: it never ends, or is none; `name` is what the user calls it.
    """
    if isinstance(dataset, keras.utils.PyDataset):
        return (dataset[i] for i in range(len(dataset)))
    if hasattr(dataset, "cardinality") and int(dataset.cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
        raise ValueError(f"{name} must end, and this data set repeats itself: give its .take(batches).")
    if not isinstance(dataset, Iterable):
        raise ValueError(f"{name} must be an array, or batches as `fit` takes them. Received: {type(dataset).__name__}")
    return iter(dataset)


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
        self.images, self.labels, self.preprocessing = data.x_train, data.y_train, data.preprocessing
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
        images = self.images[chosen]
        if recipe.randaugment:
            fill = fill_of(self.preprocessing.mean)
            images = np.stack([rand_augment(image, recipe.randaugment, fill, rng) for image in images])
        images = normalize(images, self.preprocessing, "channels_last")
        images = crop_and_flip(images, recipe.padding, rng)
        targets = one_hot(self.labels[chosen], self.classes, *recipe.target_values(self.classes))
        images, targets = mix(images, targets, recipe, rng)
        return to_data_format(share(images, self.part)), share(targets, self.part)

    def on_epoch_end(self):
        self.epoch += 1


def share(array, part):
    """Returns one of several equal parts; `part` is (index, count)."""
    index, count = part
    size = len(array) // count
    return array[index * size:(index + 1) * size]
