"""Measuring a network: top-1 and top-5 error, per class, averaged over views."""
import dataclasses
import sys
from typing import Any

import keras
import numpy as np

from keras_preact._support.checks import as_list, check_choice, check_count, is_count
from keras_preact._support.drawing import drawing, printable
from keras_preact.data import datasets
from keras_preact.data.arrays import Data
from keras_preact.data.preprocessing import (
    IMAGENET_LABELS,
    LABELS,
    VIEWS,
    Preprocessing,
    check_for,
    normalize,
    normalizes,
    of_pixels,
    to_data_format,
)

LAST = "channels_last"


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
        notes: what there is to know of how it was measured, a sentence each.
    """

    dataset: str
    views: str
    crop: tuple
    labels: tuple
    confusion: np.ndarray
    wrong5: int
    notes: tuple = ()

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
        n = len(self.labels)
        side = min(3 + 0.4 * n, 20)
        labels = [printable(label) for label in self.labels]
        share = 100 * self.confusion / np.maximum(self.confusion.sum(1, keepdims=True), 1)
        with drawing(path, figsize=(side, side)) as axes:
            axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
            axes.set(
                xticks=range(n), yticks=range(n), yticklabels=labels, xlabel="predicted", ylabel="true",
                title=f"{self.dataset}: {self.top1_error:.2f} % error",
            )
            axes.set_xticklabels(labels, rotation=90)
            if n <= 20:
                for (row, column), value in np.ndenumerate(share):
                    axes.text(
                        column, row, f"{value:.1f}", ha="center", va="center", fontsize=7,
                        color="white" if value > 50 else "black",
                    )


def evaluate(
    model: Any,
    data: Any,
    preprocessing: Preprocessing | None = None,
    views: str = "single",
    crop: int | tuple[int, int] | None = None,
    resize: int | None = None,
    batch_size: int | None = None,
    verbose: int | str = "auto",
) -> Report:
    """Measures `model` on the test images of `data`.

    Where `model.labels` and the data name their classes, these are joined by name, in whatever order either has them;
    else by position, and the report says so in its `notes`.

    Args:
        model: a network with its top, whose outputs are logits or probabilities; or a `Predictor`, of whose runtime or
            file the error then is, for images of its size.
        data: what `train` takes: a TensorFlow data set by name, an .npz or .csv file, a folder, arrays or data sets;
            or its test images alone: (images, labels), a data set of these, x_test and y_test in an .npz file, a folder
            `test` of class folders.
        preprocessing: a `Preprocessing`, what the weights were trained with; default that of `model` or, if it has
            none, of `data`.
        views: of each image, whose outputs are averaged: "single", the central crop; "flip", that and its mirror
            image; "ten_crop", the four corners and the centre, and their mirror images.
        crop: side of a view in pixels, or its (height, width); default that of `preprocessing`.
        resize: shorter side in pixels to which photographs of any size are resized before they are cropped, at least
            the longer side of the crop; default what `preprocessing` says, for 224 pixels of ImageNet 256. Images of
            one size stay as they are.
        batch_size: images at a time; default by their size.
        verbose: 1 for a progress bar, 0 for none; "auto" is 1 in a terminal.

    Returns:
        A `Report`.

    Raises:
        ValueError: unknown views, what is no size, a crop larger than the images, or a network of other classes than
            the data, by their number or by their names; or another `preprocessing` than that of a `Predictor`.

    Example:

    >>> report = kp.evaluate(kp.PreActResNet20(weights="cifar10"), (images, labels))
    >>> report.images == len(images) and report.top1_error < 20
    True
    """
    check_choice("views", views, VIEWS)
    for name, value in (("resize", resize), ("batch_size", batch_size)):
        if value is not None:
            check_count(name, value)
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        raise ValueError(f"`preprocessing` must be a Preprocessing, as the model's. Received: {preprocessing!r}")
    if not all(isinstance(getattr(model, f"{end}_shape", None), tuple) for end in ("input", "output")):
        raise ValueError(
            "`model` must have one input and one output of known shapes: build a subclass of keras.Model from "
            f"keras.Input, as a functional model. Received: {getattr(model, 'name', model)!r}"
        )
    known = getattr(model, "labels", None) or tuple(map(str, range(model.output_shape[-1])))
    data = datasets.load(data, known=known)
    preprocessing = preprocessing or getattr(model, "preprocessing", None)
    if preprocessing is None and data.preprocessing is not None:
        preprocessing = of_pixels(data.preprocessing) if normalizes(model) else data.preprocessing
    if preprocessing is None:
        raise ValueError("Without training images, whose statistics these may be, give `preprocessing`. Received: None")
    trained = preprocessing.size
    preprocessing, resizing = _cropped(preprocessing, crop, resize, data)
    shape = preprocessing.input_shape
    if any(wanted not in (None, side) for wanted, side in zip(model.input_shape[1:], shape)):
        raise ValueError(
            f"The network takes images of shape {model.input_shape[1:]} and the views have {shape}; build it with "
            "height and width None, input_shape=(None, None, 3), or give another `crop`."
        )
    if model.output_shape[-1] != len(data.labels):
        raise ValueError(
            f"The network tells {model.output_shape[-1]} classes apart, and {data.name} has {len(data.labels)}."
        )
    order, notes = _joined(getattr(model, "labels", None), data)
    if crop is None and preprocessing.size != trained:
        sizes = [f"{height}x{width}" for height, width in (preprocessing.size, trained)]
        notes += (f"The images were measured as they are, {sizes[0]}, and the weights are for {sizes[1]}.",)
    batch_size = batch_size or datasets.batch_of(preprocessing.size)
    progress = keras.utils.Progbar(data.test_images, verbose=int(sys.stdout.isatty() if verbose == "auto" else verbose))
    scores, truth = [], []
    run = outputs_of(model, preprocessing)
    for images, labels in data.test_views(views, resizing, batch_size, preprocessing.size):
        outputs = [run(view) for view in np.moveaxis(images, 1, 0)]
        outputs = np.sum(outputs, 0, dtype="float64")[:, order]
        if not np.isfinite(outputs).all():
            raise ValueError(
                "The network gives values that are not finite: its weights or the images are no numbers, or it "
                "computes in a precision that is too low for it."
            )
        scores.append(outputs)
        truth.append(labels)
        progress.add(len(labels))
    report = score(data.name, views, preprocessing.size, data.labels, np.concatenate(scores), np.concatenate(truth))
    return dataclasses.replace(report, notes=(*data.notes, *notes))


def outputs_of(model, preprocessing):
    """Returns a call from uint8 images to the outputs of `model`, a network or a `Predictor`.

    Raises:
        ValueError: the statistics of `preprocessing` are not those that a `Predictor` has inside.
    """
    if hasattr(model, "predict_on_batch"):
        check_for(preprocessing, model)
        return lambda images: keras.ops.convert_to_numpy(
            model.predict_on_batch(to_data_format(normalize(images, preprocessing, LAST)))
        )
    given, inside = ((known.mean, known.std) for known in (preprocessing, model.preprocessing))
    if given != inside:
        raise ValueError(f"`preprocessing` is inside a Predictor: leave it out. Received: {preprocessing}")
    return model


def _joined(labels, data):
    """Returns (for each class of `data` the output of a network of these `labels`, what is to be noted of that).

    Raises:
        ValueError: other names than those of the data.
    """
    classes, ours = len(data.labels), tuple(labels or ())
    names, wordnet_ids = (LABELS[name] for name in IMAGENET_LABELS)
    if ours == names and set(data.labels) == set(wordnet_ids):
        ours = wordnet_ids
    for candidate in (ours, tuple(map(str, range(classes)))):  # folders may be named by the numbers of the classes
        if len(set(candidate)) == classes and set(candidate) == set(data.labels):
            note = f"Classes were joined by their numbers: {data.name} does not name them."
            return [candidate.index(label) for label in data.labels], (note,) * (candidate != ours)
    if not ours or ours == tuple(data.labels):
        note = "Classes were joined by position: the network does not name them (`model.labels`)."
        return range(classes), (note,) * (not ours)
    only, missing = (sorted(set(a) - set(b))[:5] for a, b in ((ours, data.labels), (data.labels, ours)))
    raise ValueError(
        f"The classes of the network and of {data.name} must have the same names. Received: only the network has "
        f"{only}, only {data.name} has {missing} (at most five of each). Rename the folders, or set `model.labels` to "
        "the names in the data, in the order of the outputs; with model.labels = None classes are joined by position."
    )


def _cropped(preprocessing, crop, resize, data):
    """Returns (`preprocessing` of what the network sees, that by which photographs are resized before the crop)."""
    size = preprocessing.size if crop is None else (crop, crop) if is_count(crop) else tuple(as_list(crop))
    if len(size) != 2 or not all(map(is_count, size)):
        raise ValueError(f"`crop` must be a side in pixels, or (height, width). Received: {crop!r}")
    if isinstance(data, Data):
        height, width, _ = data.image_shape
        if crop is None:
            size = height, width
        if size[0] > height or size[1] > width:
            raise ValueError(f"`crop` must fit into the images of {data.name}, {height}x{width}. Received: {size}")
        return (dataclasses.replace(preprocessing, size=size),) * 2
    if resize is None:
        return (dataclasses.replace(preprocessing, size=size),) * 2
    if resize < max(size):
        raise ValueError(f"`resize` must be at least the crop, {max(size)}. Received: {resize}")
    # Of the size that an uncropped square has, the shorter side is `resize`.
    return tuple(dataclasses.replace(preprocessing, size=side, crop=1.0) for side in (size, (resize, resize)))


def score(dataset, views, crop, labels, scores, truth):
    """Returns the `Report` of `scores` (images, classes) against the true classes; of equal scores the first wins."""
    order = np.argsort(-scores, axis=1, kind="stable")
    confusion = np.zeros((len(labels), len(labels)), "int64")
    np.add.at(confusion, (truth, order[:, 0]), 1)
    wrong5 = int((order[:, :5] != truth[:, None]).all(1).sum())
    return Report(dataset, views, crop, tuple(labels), confusion, wrong5)
