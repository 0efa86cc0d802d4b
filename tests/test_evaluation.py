"""Errors counted by hand."""
import keras
import numpy as np
import pytest

import keras_preact as kp
from keras_preact.data import datasets
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
    return datasets.Data("d", images, np.array([1, 4]), images, np.array([1, 4]), LABELS, IDENTITY)


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
    with pytest.raises(ValueError, match=r"fit into the images of d, 4x6. Received: \(5, 5\)"):
        evaluation.evaluate(model, data, crop=(5, 5))
    with pytest.raises(ValueError, match="tells 4 classes apart, and d has 6"):
        evaluation.evaluate(keras.Sequential([model, keras.layers.Dense(4)]), data)


def test_the_confusion_matrix_is_drawn(data, tmp_path):
    evaluation.evaluate(brightest_column(6), data).plot(tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
