"""In-memory image data and its augmentation, in NumPy alone."""
import keras
import numpy as np


def load_npz(path):
    """Returns the arrays of an .npz file with x_train, y_train, x_test and y_test, as a dict."""
    names = ("x_train", "y_train", "x_test", "y_test")
    with np.load(path, allow_pickle=False) as file:
        missing = [name for name in names if name not in file]
        if missing:
            raise ValueError(f"A data file must hold {', '.join(names)}. {path} has no {', '.join(missing)}.")
        return {name: file[name] for name in names}


def crop_and_flip(images, padding, rng):
    """Returns `images` (n, height, width, channels), padded by zeros, cropped back at random, and half of them flipped."""
    n, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    top, left = rng.integers(0, 2 * padding + 1, (2, n))
    columns = np.arange(width)[None] + left[:, None]
    flip = rng.random(n) < 0.5
    columns[flip] = columns[flip, ::-1]
    rows = np.arange(height)[None] + top[:, None]
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


class Batches(keras.utils.PyDataset):
    """Shuffled, augmented batches of normalized images; what epoch e holds follows from (seed, e) alone."""

    def __init__(self, images, labels, batch_size, padding, seed, epoch=0):
        super().__init__()
        self.images, self.labels, self.batch_size, self.padding = images, labels, batch_size, padding
        self.seed, self.epoch = seed, epoch

    def __len__(self):
        return len(self.images) // self.batch_size

    def __getitem__(self, i):
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.images))
        chosen = order[i * self.batch_size:(i + 1) * self.batch_size]
        rng = np.random.default_rng([self.seed, self.epoch, i])
        return crop_and_flip(self.images[chosen], self.padding, rng), self.labels[chosen]

    def on_epoch_end(self):
        self.epoch += 1
