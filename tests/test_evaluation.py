"""Errors counted by hand."""
import contextlib
import dataclasses
import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

import keras_preact as kp
from keras_preact.data import datasets
from keras_preact.data.arrays import Data
from keras_preact.data.preprocessing import views_of
from keras_preact.training import evaluation

LABELS = tuple("abcdef")
IDENTITY = kp.Preprocessing((0.0,), (1 / 255,), (4, 6))  # pixel values as they are


def test_score_by_hand():
    scores = np.array([
        [9, 1, 1, 1, 1, 0],   # right
        [5, 4, 3, 2, 1, 0],   # true class fourth
        [5, 4, 3, 2, 1, 0],   # true class last: the only top-5 error
        [7, 7, 0, 0, 0, 0],   # a tie goes to the first class
    ])
    report = evaluation.score("d", "single", (4, 4), LABELS, scores, np.array([0, 3, 5, 1]))
    assert (report.images, report.wrong, report.wrong5) == (4, 3, 1)
    assert (report.top1_error, report.top5_error) == (75.0, 25.0)
    assert report.per_class()[:2] == [("a", 1, 0.0), ("b", 1, 100.0)] and np.isnan(report.per_class()[2][2])
    assert report.confusion[5, 0] == 1 and report.confusion.sum() == 4


def brightest_column(width):
    """A model of as many classes as columns, whose scores are the mean brightness of each."""
    inputs = keras.Input((None, width, 1))
    return keras.Model(inputs, keras.layers.Flatten()(keras.layers.GlobalAveragePooling1D()(
        keras.layers.Reshape((-1, width))(inputs))))


@pytest.fixture
def data():
    images = np.zeros((2, 4, 6, 1), "uint8")
    images[0, :, 1] = 10
    images[1, :, 4] = 10
    return Data("d", images, np.array([1, 4]), images, np.array([1, 4]), LABELS, IDENTITY)


def test_the_views_are_averaged(data):
    model = brightest_column(6)
    single = evaluation.evaluate(model, data)
    assert single.wrong == 0 and single.crop == (4, 6)
    # With its mirror image column 1 is as bright as column 4, and the tie goes to the first.
    assert evaluation.evaluate(model, data, views="flip").confusion[:, 1].tolist() == [0, 1, 0, 0, 1, 0]


def test_images_are_preprocessed_as_those_the_model_was_trained_on(data):
    seen, model = [], brightest_column(6)
    model.predict_on_batch = lambda x: seen.append(x) or np.zeros((2, 6))
    model.preprocessing = kp.Preprocessing((1 / 255,), (0.5 / 255,), (4, 6))
    evaluation.evaluate(model, data)
    evaluation.evaluate(model, data, IDENTITY)
    np.testing.assert_allclose([x.max() for x in seen], [(10 - 1) / 0.5, 10], rtol=1e-6)


def named(*labels):
    """The network that knows by the brightest column which of the classes `labels` an image is of."""
    model = brightest_column(6)
    model.labels = labels or None
    return model


def columns(labels, order):
    """Data of an image for each of the columns 0 to 5; its class is that of `order`, by number among `labels`."""
    images = np.zeros((6, 4, 6, 1), "uint8")
    for i in range(6):
        images[i, :, i] = 10
    return Data("d", images, np.array(order), images, np.array(order), labels, IDENTITY)


@pytest.mark.parametrize("ours, labels, order, note", [
    # Folders named by numbers, in the order of their names; image i is of class number i.
    ("012345", ("0", "1", "2", "3", "4", "5"), [0, 1, 2, 3, 4, 5], None),
    ("abcdef", ("f", "e", "d", "c", "b", "a"), [5, 4, 3, 2, 1, 0], None),
    ("", ("1", "0", "2", "3", "5", "4"), [1, 0, 2, 3, 5, 4], "joined by their numbers: d does not name them"),
    ("abcdef", ("1", "0", "2", "3", "5", "4"), [1, 0, 2, 3, 5, 4], "joined by their numbers: d does not name them"),
    ("", ("f", "e", "d", "c", "b", "a"), [0, 1, 2, 3, 4, 5], "joined by position: the network does not name them"),
    ("aacdef", ("a", "a", "c", "d", "e", "f"), [0, 1, 2, 3, 4, 5], None),
])
def test_classes_are_joined_by_name(ours, labels, order, note):
    report = evaluation.evaluate(named(*ours), columns(labels, order))
    assert report.wrong == 0 and report.labels == labels and (report.confusion == np.eye(6)).all()
    assert len(report.notes) == bool(note) and all(note in text for text in report.notes)


def test_classes_in_the_order_of_their_names():
    """Of folders sorted as text; the order is not its own inverse."""
    labels = ("0", "1", "10", "11", "2")
    data = Data("d", *2 * (np.zeros((1, 4, 6, 1), "uint8"), np.zeros(1, int)), labels, IDENTITY)
    assert evaluation._joined(("2", "0", "1", "10", "11"), data)[0] == [1, 2, 3, 4, 0]


def test_values_that_are_no_numbers_are_no_error_figure(data):
    model = brightest_column(6)
    model.predict_on_batch = lambda x: np.full((len(x), 6), np.nan)
    with pytest.raises(ValueError, match="gives values that are not finite"):
        evaluation.evaluate(model, data)


def test_a_model_without_shapes_is_refused(data):
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    for model in (Own(name="own"), keras.Sequential([keras.layers.Flatten()], name="own")):
        with pytest.raises(ValueError, match="known shapes: build a subclass of keras.Model .*Received: 'own'"):
            evaluation.evaluate(model, data)


def test_a_class_whose_name_is_no_text_is_drawn(data, tmp_path):
    report = evaluation.evaluate(brightest_column(6), data)
    named = dataclasses.replace(report, labels=("\udcff", *report.labels[1:]))
    named.plot(tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.size[0] > 100


def test_classes_of_other_names_are_refused():
    with pytest.raises(ValueError, match=r"only the network has \['f'\], only d has \['x'\].*set `model.labels` to"):
        evaluation.evaluate(named(*"abcdef"), columns(tuple("xabcde"), range(6)))


def test_wordnet_ids_are_names_of_imagenet():
    ids = datasets.LABELS["imagenet_wordnet_ids"]
    data = SimpleNamespace(name="d", labels=ids[::-1])
    order, notes = evaluation._joined(datasets.LABELS["imagenet"], data)
    assert order[:2] == [999, 998] and notes == ()


def test_photographs_are_resized_to_what_is_asked_for(tmp_path):
    """The left quarter of photographs of 80x40 and 40x80 pixels is black; `resize` tells how much a crop sees of it."""
    for name, size in (("a", (80, 40)), ("b", (40, 80))):
        pixels = np.zeros((*size[::-1], 3), "uint8")
        pixels[:, size[0] // 4:] = 255
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    seen = []
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs)))
    model.predict_on_batch = lambda x: seen.append(x) or np.zeros((len(x), 2))
    preprocessing = kp.Preprocessing((0.0,) * 3, (1 / 255,) * 3, (8, 8), 0.875, "nearest")
    report = evaluation.evaluate(model, tmp_path, preprocessing, crop=(10, 20), resize=20, views="ten_crop")
    assert report.crop == (10, 20) and all(x.shape == (2, 10, 20, 3) for x in seen)
    # Resized to 40x20 and 20x40: at the left edge of their crops 10 and 5 columns are black.
    corner = np.asarray(seen[2])
    for image, black in zip(corner, (10, 5)):
        assert image[:, :black].max() == 0 and image[:, black:].min() == 255
    assert report.notes[0].startswith("Every fifth image of each class is a test image")
    # As the weights say: resized to 18x9 and 9x18, of whose 4.5 and 2.25 black columns a crop has none and some.
    seen.clear()
    assert evaluation.evaluate(model, tmp_path, preprocessing).crop == (8, 8)
    wide, high = np.asarray(seen[0])
    assert wide.shape == (8, 8, 3) and wide.min() == 255 and high[:, 0].max() == 0 and high[:, 2:].min() == 255
    with pytest.raises(ValueError, match="`resize` must be at least the crop, 20. Received: 19"):
        evaluation.evaluate(model, tmp_path, preprocessing, crop=(10, 20), resize=19)


def test_images_of_another_size_than_the_weights_are_noted(data):
    model = brightest_column(6)
    model.preprocessing = kp.Preprocessing((0.0,), (1.0,), (8, 9))
    assert "measured as they are, 4x6, and the weights are for 8x9" in evaluation.evaluate(model, data).notes[-1]
    assert len(evaluation.evaluate(model, data, crop=(4, 6)).notes) == 1


def test_ten_crops_are_the_corners_the_centre_and_their_mirror_images():
    image = np.arange(30.0).reshape(1, 5, 6, 1)
    views = list(np.moveaxis(views_of(image, "ten_crop", (3, 4)), 1, 0))
    assert [v[0, 0, 0, 0] for v in views[::2]] == [7, 0, 2, 12, 14]
    assert all((a[:, :, ::-1] == b).all() for a, b in zip(views[::2], views[1::2]))
    assert len(views) == 10 and all(v.shape == (1, 3, 4, 1) for v in views)


def test_what_cannot_be_measured_is_refused(data):
    model = brightest_column(6)
    with pytest.raises(ValueError, match="'single', 'flip', 'ten_crop'. Received: 'five'"):
        evaluation.evaluate(model, data, views="five")
    for crop in ((5, 5), (4, 7)):
        with pytest.raises(ValueError, match=rf"fit into the images of d, 4x6. Received: {re.escape(str(crop))}"):
            evaluation.evaluate(model, data, crop=crop)
    for crop in (0, -4, 2.0, "4", (4,), (4, 6, 1), (4, 0), [4, None], {}):
        with pytest.raises(ValueError, match=r"`crop` must be a side in pixels, or \(height, width\). Received: "):
            evaluation.evaluate(model, data, crop=crop)
    for name, value in (("resize", 0), ("resize", (4, 6)), ("batch_size", 0), ("batch_size", 2.5)):
        with pytest.raises(ValueError, match=f"`{name}` must be a positive integer. Received: "):
            evaluation.evaluate(model, data, **{name: value})
    with pytest.raises(ValueError, match="`preprocessing` must be a Preprocessing, .* Received: 'cifar10'"):
        evaluation.evaluate(model, data, preprocessing="cifar10")
    with pytest.raises(ValueError, match="tells 4 classes apart, and d has 6"):
        evaluation.evaluate(keras.Sequential([model, keras.layers.Dense(4)]), data)


def test_the_confusion_matrix_is_drawn(data, tmp_path):
    evaluation.evaluate(brightest_column(6), data).plot(tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def axes(monkeypatch):
    """What figures are drawn on, in place of a file."""
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots()
    monkeypatch.setattr(evaluation, "drawing", lambda path, **options: contextlib.nullcontext(axes))
    return axes


def test_the_figure_has_the_percents_of_each_class(axes):
    """Of four images of a one is taken for b; there is none of b."""
    evaluation.Report("d", "single", (4, 6), ("a", "b"), np.array([[3, 1], [0, 0]]), 0).plot("unused")
    assert {(*text.get_position(), text.get_text(), text.get_color()) for text in axes.texts} == {
        (0, 0, "75.0", "white"), (1, 0, "25.0", "black"), (0, 1, "0.0", "black"), (1, 1, "0.0", "black"),
    }
    (image,) = axes.images
    assert image.get_array().tolist() == [[75, 25], [0, 0]] and image.get_clim() == (0, 100)
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("d: 25.00 % error", "predicted", "true")
    for ticks, rotation in ((axes.get_xticklabels(), 90), (axes.get_yticklabels(), 0)):
        assert [(tick.get_text(), tick.get_rotation()) for tick in ticks] == [("a", rotation), ("b", rotation)]


@pytest.mark.parametrize("classes, texts", [(20, ["0.0"] * 380 + ["100.0"] * 20), (21, [])])
def test_the_figure_of_many_classes_has_colours_alone(classes, texts, axes):
    labels = tuple(map(str, range(classes)))
    evaluation.Report("d", "single", (4, 6), labels, np.eye(classes, dtype=int), 0).plot("unused")
    assert sorted(text.get_text() for text in axes.texts) == texts


@pytest.mark.parametrize("kind", ["pair", "dict", "data set"])
def test_test_images_alone_are_measured(kind):
    """Image i is of class i but the last, which is of class 0; the data set has no class 5."""
    whole = columns(LABELS, [0, 1, 2, 3, 4, 0])
    images, labels = whole.x_test, whole.y_test
    pair = images, labels
    given = {"pair": pair, "dict": dict(zip(("x_test", "y_test"), pair)), "data set": iter([pair])}
    report = evaluation.evaluate(named(*LABELS), given[kind], IDENTITY)
    assert (report.images, report.wrong, len(report.labels)) == (6, 1, 6)
    assert report.notes == ("Classes were joined by their numbers: arrays does not name them.",)
    names = np.array(LABELS)[labels]
    report = evaluation.evaluate(named(*LABELS[::-1]), (images[:, :, ::-1], names), IDENTITY)
    assert (report.wrong, report.labels, report.notes) == (1, LABELS[::-1], ())
    with pytest.raises(ValueError, match="Without training images, .* give `preprocessing`. Received: None"):
        evaluation.evaluate(named(*LABELS), (images, labels))
