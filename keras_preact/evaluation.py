"""Measuring a network: top-1 and top-5 error, per class, averaged over views."""
import dataclasses

import keras
import numpy as np

from keras_preact import datasets
from keras_preact.preprocessing import normalize

VIEWS = ("single", "flip", "ten_crop")


@dataclasses.dataclass(frozen=True)
class Report:
    """What `evaluate` measured, on the test images of a data set.

    Args:
        dataset: its name.
        views: "single", "flip" or "ten_crop".
        crop: (height, width) of what the network saw.
        labels: the name of each class.
        confusion: counts of shape (classes, classes): row the true class, column the predicted one.
        wrong5: images whose class is not among the five most probable.
    """

    dataset: str
    views: str
    crop: tuple
    labels: tuple
    confusion: np.ndarray
    wrong5: int

    @property
    def images(self):
        return int(self.confusion.sum())

    @property
    def wrong(self):
        return self.images - int(np.trace(self.confusion))

    @property
    def top1_error(self):
        """Percent of the images whose most probable class is wrong."""
        return 100 * self.wrong / self.images

    @property
    def top5_error(self):
        """Percent of the images whose class is not among the five most probable; of fewer classes, 0."""
        return 100 * self.wrong5 / self.images

    def per_class(self):
        """Returns (label, images, error in percent) for each class."""
        counts = self.confusion.sum(1)
        right = np.diag(self.confusion)
        return [
            (label, int(n), float(100 * (n - r) / n) if n else float("nan"))
            for label, n, r in zip(self.labels, counts, right)
        ]

    def plot(self, path):
        """Writes the confusion matrix, each row in percent of its class, as a PNG."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        n = len(self.labels)
        side = min(3 + 0.4 * n, 20)
        figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
        share = 100 * self.confusion / np.maximum(self.confusion.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
        axes.set(
            xticks=range(n), yticks=range(n), yticklabels=self.labels, xlabel="predicted", ylabel="true",
            title=f"{self.dataset}: {self.top1_error:.2f} % error",
        )
        axes.set_xticklabels(self.labels, rotation=90)
        if n <= 20:
            for (row, column), value in np.ndenumerate(share):
                axes.text(
                    column, row, f"{value:.1f}", ha="center", va="center", fontsize=7,
                    color="white" if value > 50 else "black",
                )
        figure.savefig(path, dpi=100)
        plt.close(figure)


def evaluate(model, data, preprocessing=None, views="single", crop=None, batch_size=500):
    """Measures `model` on the test images of `data`.

    Args:
        model: a network with its top, whose outputs are logits or probabilities.
        data: what `datasets.load` takes: a TensorFlow data set by name, an .npz file, a folder, or arrays.
        preprocessing: a `Preprocessing`, what the weights were trained with; default that of `data`.
        views: of each image, whose outputs are averaged: "single", the central crop; "flip", that and its mirror
            image; "ten_crop", the four corners and the centre, and their mirror images.
        crop: (height, width) of a view; default the whole image.
        batch_size: images at a time.

    Returns:
        A `Report`.

    Raises:
        ValueError: unknown views, a crop larger than the images, or a network of other classes than the data.
    """
    if views not in VIEWS:
        raise ValueError(f"`views` must be one of {', '.join(map(repr, VIEWS))}. Received: {views!r}")
    first = keras.config.image_data_format() == "channels_first"
    data = datasets.load(data, model.input_shape[2:] if first else model.input_shape[1:3])
    size = data.x_test.shape[1:3]
    crop = tuple(crop or size)
    if crop[0] > size[0] or crop[1] > size[1]:
        raise ValueError(f"`crop` must fit into the images of {data.name}, {size[0]}x{size[1]}. Received: {crop}")
    if model.output_shape[-1] != len(data.labels):
        raise ValueError(
            f"The network tells {model.output_shape[-1]} classes apart, and {data.name} has {len(data.labels)}."
        )
    scores = np.zeros((len(data.x_test), len(data.labels)))
    for start in range(0, len(scores), batch_size):
        images = normalize(data.x_test[start:start + batch_size], preprocessing or data.preprocessing, "channels_last")
        for view in _views(images, views, crop):
            output = model.predict_on_batch(datasets.to_data_format(np.ascontiguousarray(view)))
            scores[start:start + batch_size] += keras.ops.convert_to_numpy(output)
    return score(data.name, views, crop, data.labels, scores, data.y_test)


def score(dataset, views, crop, labels, scores, truth):
    """Returns the `Report` of `scores` (images, classes) against the true classes; of equal scores the first wins."""
    order = np.argsort(-scores, axis=1, kind="stable")
    confusion = np.zeros((len(labels), len(labels)), "int64")
    np.add.at(confusion, (truth, order[:, 0]), 1)
    wrong5 = int((order[:, :5] != truth[:, None]).all(1).sum())
    return Report(dataset, views, crop, tuple(labels), confusion, wrong5)


def _views(images, views, crop):
    height, width = images.shape[1:3]
    bottom, right = height - crop[0], width - crop[1]
    corners = [(bottom // 2, right // 2)]
    if views == "ten_crop":
        corners += [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    for top, left in corners:
        view = images[:, top:top + crop[0], left:left + crop[1]]
        yield view
        if views != "single":
            yield view[:, :, ::-1]
