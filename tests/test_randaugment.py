"""RandAugment, against timm's functions, arithmetic and counts."""
import dataclasses
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_preact as kp
from keras_preact.data import datasets, randaugment
from keras_preact.data.randaugment import NAMES, OPERATIONS, SIGNED, rand_augment

RNG = np.random.default_rng(0)
ROWS, COLUMNS = np.mgrid[:24, :20]
PHOTO = np.stack([ROWS * 9, COLUMNS * 11, 120 + 60 * np.sin(ROWS + COLUMNS)], -1).astype("uint8")
FILL = (7, 80, 200)
RECIPE = kp.Recipe("tiny", "a test", epochs=2, batch_size=8, padding=0, randaugment=(2, 9))


@pytest.fixture(scope="module")
def timm():
    """Its file of policies alone, which needs Pillow and NumPy."""
    package = importlib.util.find_spec("timm")
    if package is None:
        pytest.skip("timm is not installed")
    spec = importlib.util.spec_from_file_location("policies", Path(package.origin).parent / "data" / "auto_augment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What timm's functions are called, and their argument at half the largest strength, by hand.
AT_HALF = {
    "shear_x": ("shear_x", 0.15), "shear_y": ("shear_y", 0.15), "translate_x": ("translate_x_abs", 4.5),
    "translate_y": ("translate_y_abs", 5.4), "rotate": ("rotate", 15), "color": ("color", 1.45),
    "contrast": ("contrast", 1.45), "brightness": ("brightness", 1.45), "sharpness": ("sharpness", 1.45),
    "autocontrast": ("auto_contrast",), "equalize": ("equalize",), "posterize": ("posterize", 6),
    "solarize": ("solarize", 128),
}
BACKWARDS = {name: -value for name, (_, value) in list(AT_HALF.items())[:5]}
BACKWARDS |= dict.fromkeys(("color", "contrast", "brightness", "sharpness"), 0.55)


@pytest.mark.parametrize("name", AT_HALF)
def test_operations_are_those_of_timm(name, timm):
    image, (theirs, *arguments) = Image.fromarray(PHOTO), AT_HALF[name]
    borders = {"fillcolor": FILL, "resample": Image.Resampling.BILINEAR}

    def expected(*arguments):
        return np.asarray(getattr(timm, theirs)(image, *arguments, **borders))

    np.testing.assert_array_equal(OPERATIONS[name](image, 0.5, FILL), expected(*arguments))
    assert (name in SIGNED) == (name in BACKWARDS)
    if name in SIGNED:
        np.testing.assert_array_equal(OPERATIONS[name](image, -0.5, FILL), expected(BACKWARDS[name]))


def test_the_largest_strengths_by_hand():
    image = Image.fromarray(PHOTO)
    moved = np.asarray(OPERATIONS["translate_x"](image, 1, FILL))  # by 0.45 * 20 pixels
    np.testing.assert_array_equal(moved[:, :11], PHOTO[:, 9:])
    assert (moved[:, 11:] == FILL).all()
    np.testing.assert_array_equal(OPERATIONS["posterize"](image, 1, FILL), PHOTO // 16 * 16)  # 4 of 8 bits stay
    np.testing.assert_array_equal(OPERATIONS["solarize"](image, 1, FILL), 255 - PHOTO)
    np.testing.assert_array_equal(OPERATIONS["solarize"](image, 0, FILL), PHOTO)
    assert OPERATIONS["identity"](image, 1, FILL) is image


def test_each_operation_is_drawn_as_often_and_goes_both_ways(monkeypatch):
    drawn = []
    for name in NAMES:
        monkeypatch.setitem(OPERATIONS, name, lambda image, part, fill, name=name: drawn.append((name, part)) or image)
    for _ in range(4000):
        rand_augment(PHOTO, (2, 9), FILL, RNG)
    counts, parts = Counter(name for name, _ in drawn), Counter(drawn)
    assert len(NAMES) == 14 and len(drawn) == 8000 and set(counts) == set(NAMES)
    assert all(abs(count - 8000 / 14) < 100 for count in counts.values())  # four deviations of 23
    for name in NAMES:
        if name in SIGNED:
            assert set(parts) >= {(name, 0.9), (name, -0.9)} and abs(parts[name, 0.9] / counts[name] - 0.5) < 0.1
        else:
            assert parts[name, 0.9] == counts[name]


def test_an_image_changes_and_the_given_one_stays():
    before = PHOTO.copy()
    changed = [rand_augment(PHOTO, (3, 10), FILL, np.random.default_rng(seed)) for seed in range(30)]
    assert {(image.shape, image.dtype.name) for image in changed} == {(PHOTO.shape, "uint8")}
    np.testing.assert_array_equal(PHOTO, before)
    assert len({image.tobytes() for image in changed}) > 25
    grey = rand_augment(PHOTO[..., :1], (3, 10), (7,), np.random.default_rng(0))
    assert grey.shape == (24, 20, 1)


def arrays(channels):
    images = RNG.integers(0, 256, (32, 8, 8, channels)).astype("uint8")
    return {"x_train": images, "y_train": np.arange(32) % 4, "x_test": images[:4], "y_test": np.arange(4)}


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_in_memory_follow_from_seed_and_epoch(channels):
    data = datasets.load(arrays(channels))

    def epoch(number, seed=3, recipe=RECIPE):
        batches = data.training(recipe, seed, number)["x"]
        return np.stack([batches[i][0] for i in range(len(batches))])

    np.testing.assert_array_equal(epoch(0), epoch(0))
    plain = epoch(0, recipe=dataclasses.replace(RECIPE, randaugment=()))
    images = [epoch(0), epoch(1), epoch(0, seed=4), plain]
    assert all(np.abs(a - b).max() > 0.1 for i, a in enumerate(images) for b in images[:i])


def test_what_is_changed_are_pixels(monkeypatch):
    """Solarized wholly: 255 - x, before they are normalized."""
    monkeypatch.setattr(randaugment, "NAMES", ("solarize",))
    data, recipe = datasets.load(arrays(3)), dataclasses.replace(RECIPE, randaugment=(1, 10))
    mean, std = (np.array(values) for values in (data.preprocessing.mean, data.preprocessing.std))
    images = np.concatenate([(batch * std + mean) * 255 for batch, _ in map(
        data.training(recipe, 3)["x"].__getitem__, range(4)
    )])
    expected = {image.tobytes() for half in (data.x_train, data.x_train[:, :, ::-1]) for image in 255 - half}
    assert {image.tobytes() for image in images.round().astype("uint8")} <= expected


@pytest.mark.parametrize("policy", [(2,), (0, 9), (2, 11), (2.0, 9), (2, -1), (True, 9), ("2", 9), (2, 9, 1)])
def test_policies_that_are_none_are_refused(policy):
    with pytest.raises(ValueError, match=r"`randaugment` must be \(operations, magnitude\).*Received: \("):
        dataclasses.replace(RECIPE, randaugment=policy)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="changes images of 1 or 3 channels. Received: 4 in arrays"):
        datasets.for_recipe(arrays(4), RECIPE, kp.NetworkConfig((1,), (4,)))
