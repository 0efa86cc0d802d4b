"""Photographs in folders and TensorFlow Datasets; their random crops and colours, against Pillow and arithmetic."""
import dataclasses
import functools
import io
import itertools
import os
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import killed, slow
from PIL import Image

import keras_preact as kp
from keras_preact.data import datasets, mixing, randaugment, streams
from keras_preact.data.preprocessing import load_image
from keras_preact.networks.config import NetworkConfig
from keras_preact.training.recipes import Recipe

tf = pytest.importorskip("tensorflow")

from keras_preact.data import augmentation  # noqa: E402

RECIPE = Recipe("tiny", "a test", epochs=3, batch_size=4, schedule="cosine", augmentation="scale_aspect", size=16)
COLOURS = dataclasses.replace(RECIPE, colour=0.4, lighting=0.1)
SEEDS = tf.stack([tf.fill([2000], 5), tf.range(2000)], 1)
GREY = np.array([0.299, 0.587, 0.114])
CLASSES, PER_CLASS = 3, 5  # of which every fifth is for testing


def over_seeds(draw):
    signature = tf.nest.map_structure(tf.TensorSpec.from_tensor, draw(SEEDS[0]))
    return tf.function(lambda: tf.map_fn(draw, SEEDS, fn_output_signature=signature))()


def windows(window, height, width):
    top, left, h, w = over_seeds(lambda seed: window(tf.constant([height, width]), seed)).numpy().T
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= height).all() and (left + w <= width).all()
    return top, left, h, w


def test_scale_jitter_crops_a_square_from_a_shorter_side_of_256_to_480():
    top, left, h, w = windows(augmentation.scale_window, 300, 400)
    assert (h == w).all()
    shorter = 300 * 224 / h
    assert 256 - 1 <= shorter.min() < 262 and 474 < shorter.max() <= 480 + 2
    assert abs(shorter.mean() - (256 + 480) / 2) < 6  # standard error: 224 / sqrt(12 * 2000) = 1.4
    # Offsets are uniform over the room that is left: half of it in the mean.
    assert abs((left / (400 - w)).mean() - 0.5) < 0.03 and abs((top / (300 - h)).mean() - 0.5) < 0.03
    assert left.min() == 0 and (left == 400 - w).any()
    _, _, h, _ = windows(augmentation.scale_window, 30_000, 40_000)  # where a pixel is less of it
    shorter = 30_000 * 224 / h
    assert 256 - 0.1 < shorter.min() < 257 and 479 < shorter.max() < 480 + 0.1


def test_crops_follow_from_the_draws_of_their_seed():
    """By arithmetic. From other draws a run that goes on would see other crops than before."""
    for seed in SEEDS[:20]:
        scale, top, left = tf.random.stateless_uniform((3,), augmentation.fold(seed, 0)).numpy()
        side = round(300 / (256 / 224 + scale))  # to 480 / 224, one more
        expected = [int(top * (300 - side + 1)), int(left * (400 - side + 1)), side, side]
        assert augmentation.scale_window(tf.constant([300, 400]), seed).numpy().tolist() == expected


def test_crops_by_area_follow_from_the_draws_of_their_seed():
    for seed in SEEDS[:50]:
        area, aspect, turned, top, left = tf.random.stateless_uniform((5, 10), augmentation.fold(seed, 0)).numpy()
        area, aspect = 300 * 400 * (0.08 + 0.92 * area), 3 / 4 + (4 / 3 - 3 / 4) * aspect
        aspect = np.where(turned < 0.5, 1 / aspect, aspect)
        h, w = np.sqrt(area / aspect).round().astype(int), np.sqrt(area * aspect).round().astype(int)
        i = np.flatnonzero((h <= 300) & (w <= 400))[0]
        expected = [int(top[i] * (300 - h[i] + 1)), int(left[i] * (400 - w[i] + 1)), h[i], w[i]]
        assert augmentation.area_window(tf.constant([300, 400]), seed).numpy().tolist() == expected


def test_area_and_aspect_ratio():
    _, _, h, w = windows(augmentation.area_window, 300, 300)
    share = h * w / 300**2
    assert 0.078 < share.min() < 0.09 and share.max() > 0.9
    aspect = w / h
    assert 0.73 < aspect.min() < 0.78 and 1.29 < aspect.max() < 1.37
    assert abs((aspect > 1).mean() - 0.5) < 0.05


def test_where_no_attempt_fits_the_central_square_is_cropped():
    # 8 % of 10 x 1000 pixels at no more than 4/3 is 24 pixels high.
    assert augmentation.area_window(tf.constant([10, 1000]), SEEDS[0]).numpy().tolist() == [0, 495, 10, 10]


def photograph(height=90, width=120, seed=0):
    """Smooth random colours, as a photograph has them."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype("uint8")
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, kind="JPEG"):
    file = io.BytesIO()
    image.save(file, kind, quality=95)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("window", augmentation.WINDOWS.values())
def test_a_crop_is_that_of_pillow(kind, window):
    file, flips = encoded(photograph(), kind), 0
    for seed in SEEDS[:8]:
        top, left, h, w = window(tf.constant([90, 120]), seed).numpy().tolist()
        crop = Image.open(io.BytesIO(file)).crop((left, top, left + w, top + h))
        expected = np.asarray(crop.resize((32, 32), Image.Resampling.BICUBIC), "float32")
        found = augmentation.crop_encoded(file, window, 32, seed).numpy()
        assert found.shape == (32, 32, 3) and found.min() >= 0 and found.max() <= 255
        straight, mirrored = (np.abs(x - expected).mean() for x in (found, found[:, ::-1]))
        assert min(straight, mirrored) < 0.8 and max(straight, mirrored) > 5  # levels of 255
        flips += mirrored < straight
    assert 0 < flips < 8


def test_a_crop_is_mirrored_whatever_its_size():
    """Brightness rises from left to right."""
    file = encoded(Image.fromarray(np.tile(np.arange(80, dtype="uint8")[:, None], (60, 1, 3))), "PNG")
    crops = [augmentation.crop_encoded(file, augmentation.scale_window, 4, seed).numpy() for seed in SEEDS[:200]]
    slopes = np.array([crop[0, 3, 0] - crop[0, 0, 0] for crop in crops])
    assert abs(np.corrcoef(slopes > 0, abs(slopes))[0, 1]) < 0.2  # three standard errors, 1 / sqrt(200) each


def test_a_small_crop_is_the_mean_of_many_pixels():
    """Columns are black and white in turn; without antialiasing some pixels would be, too."""
    stripes = np.zeros((320, 240, 3), "uint8")
    stripes[:, ::2] = 255
    for window in augmentation.WINDOWS.values():
        found = augmentation.crop_encoded(encoded(Image.fromarray(stripes), "PNG"), window, 8, SEEDS[0]).numpy()
        assert found.std() < 10 and abs(found.mean() - 127.5) < 3


def test_a_crop_stays_between_black_and_white():
    """Cubics overshoot at the edges of stripes."""
    stripes = np.zeros((60, 80, 3), "uint8")
    stripes[:, np.arange(80) % 8 < 4] = 255
    found = augmentation.crop_encoded(encoded(Image.fromarray(stripes), "PNG"), augmentation.scale_window, 64, SEEDS[0])
    assert found.numpy().min() == 0 and found.numpy().max() == 255


@pytest.mark.parametrize("shape", [(1, 3), (1, 6), (4, 6)])
def test_a_change_of_colours_by_hand(shape):
    image = np.tile(np.float32([1, 2, 3]), (*shape, 1)) * np.arange(1, 1 + np.prod(shape)).reshape(*shape, 1)
    matrix, offset = np.float32([[1, 0, 10], [0, 1, 0], [0, 2, 0]]), np.float32([0.5, 0, -1])
    changed = augmentation.change_colours(tf.constant(image, "float32"), matrix, offset).numpy()
    assert changed.shape == image.shape
    assert changed[0, 0].tolist() == [1.5, 8, 9] and changed[0, 2].tolist() == [3.5, 24, 29]
    assert changed[-1, -1].tolist() == [image[-1, -1, 0] + 0.5, 8 * image[-1, -1, 0], 10 * image[-1, -1, 0] - 1]


def jittered(image, seed):
    image = tf.constant(image)
    return augmentation.change_colours(image, *augmentation.jitter_colour(image, 0.4, seed))


@pytest.mark.parametrize("seed", list(SEEDS[:5]))
def test_colours_are_those_of_torch_in_any_order(seed):
    def grey(image):
        return (image @ GREY)[..., None]

    image = np.random.default_rng(0).random((5, 7, 3), "float32")
    matrix, offset = (x.numpy() for x in augmentation.jitter_colour(tf.constant(image), 0.4, seed))
    both = matrix.sum(0)[0]  # brightness and contrast: saturation leaves grey as it is
    brightness = both + offset[0] / grey(image).mean()
    contrast, saturation = both / brightness, (matrix[0, 0] - matrix[0, 1]) / both
    steps = (
        lambda x: brightness * x,
        lambda x: contrast * x + (1 - contrast) * grey(x).mean(),
        lambda x: saturation * x + (1 - saturation) * grey(x),
    )
    for order in itertools.permutations(steps):
        expected = functools.reduce(lambda x, step: step(x), order, image)
        np.testing.assert_allclose(jittered(image, seed), expected, atol=1e-5)


def test_colours():
    grey = np.float32([[[0.2] * 3, [0.6] * 3]])
    found = over_seeds(lambda seed: jittered(grey, seed)).numpy()[:, 0]
    np.testing.assert_allclose(found[..., 0], found[..., 2], rtol=1e-5)  # of grey there is no saturation
    brightness = found[:, :, 0].mean(1) / 0.4
    contrast = (found[:, 1, 0] - found[:, 0, 0]) / 0.4 / brightness
    red = over_seeds(lambda seed: jittered(np.float32([[[1, 0, 0]]]), seed)).numpy()[:, 0, 0]
    level = red @ GREY
    np.testing.assert_allclose(level, 0.299 * brightness, rtol=1e-4)
    saturation = (red[:, 0] - red[:, 1]) / brightness / contrast
    for factor in (brightness, contrast, saturation):
        assert 0.599 < factor.min() < 0.61 and 1.39 < factor.max() < 1.401 and abs(factor.mean() - 1) < 0.02
    for a, b in ((brightness, contrast), (contrast, saturation), (brightness, saturation)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


def test_lighting_is_a_colour_of_imagenets_covariance():
    shift = over_seeds(lambda seed: augmentation.jitter_lighting(0.1, seed)).numpy()
    # The first component, nearly grey, has 0.1 * 0.2175 as its deviation, a third of its variance in each channel.
    np.testing.assert_allclose(shift.std(0), 0.1 * 0.2175 * np.array([0.5675, 0.5808, 0.5836]), rtol=0.05)
    assert np.corrcoef(shift.T).min() > 0.97


def test_lighting_has_imagenets_deviation_along_each_component():
    """Those of fb.resnet.torch's datasets/imagenet.lua."""
    directions = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=2e-4)  # so that these are what was published
    np.testing.assert_array_equal(augmentation.DIRECTIONS, directions)
    shift = over_seeds(lambda seed: augmentation.jitter_lighting(0.1, seed)).numpy()
    np.testing.assert_allclose((shift @ directions).std(0), 0.1 * np.array([0.2175, 0.0188, 0.0045]), rtol=0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs of different sizes whose red channel is 40 + 60 times their class, blue 15 times their number."""
    path = tmp_path_factory.mktemp("photos")
    for label in range(CLASSES):
        (path / f"class{label}").mkdir()
        for i in range(PER_CLASS):
            Image.new("RGB", (20 + 3 * i, 30), colour(label, i)).save(path / f"class{label}" / f"{i}.jpg", quality=95)
    return path


def colour(label, i):
    return 40 + 60 * label, 100, 15 * i + 60 * label


def prepare_tfds(folder, data_dir):
    """Makes the TensorFlow data set `tiny_photos` of the same images, in two files."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder):
        VERSION, name = tfds.core.Version("1.0.0"), "tiny_photos"

        def _info(self):
            image, label = tfds.features.Image(encoding_format="jpeg"), tfds.features.ClassLabel(num_classes=CLASSES)
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(range(4)), "validation": self._generate_examples([4])}

        def _generate_examples(self, numbers):
            for label, i in itertools.product(range(CLASSES), numbers):
                yield f"{label}-{i}", {"image": folder / f"class{label}" / f"{i}.jpg", "label": label}

    config = tfds.download.DownloadConfig(num_shards=2)
    Builder(data_dir=data_dir).download_and_prepare(download_config=config)


@pytest.fixture(scope="module", params=["folder", slow("tfds")])
def stream(request, folder, tmp_path_factory):
    if request.param == "folder":
        data = datasets.load(folder)
    else:
        tfds = pytest.importorskip("tensorflow_datasets")
        data_dir = tmp_path_factory.mktemp("tfds")
        prepare_tfds(folder, data_dir)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tfds, "builder", functools.partial(tfds.builder, data_dir=data_dir))
            data = datasets.load("tiny_photos")
    return dataclasses.replace(data, preprocessing=dataclasses.replace(data.preprocessing, size=(16, 16)))


def epochs(stream, recipe=RECIPE, **kwargs):
    """Returns, for each epoch, the (class, number) of its images as their colours tell them, and the targets."""
    given = stream.training(recipe, **{"seed": 3} | kwargs)
    found = []
    for images, targets in given["x"].as_numpy_iterator():
        pixels = images.mean((1, 2)) * stream.preprocessing.std + stream.preprocessing.mean
        labels = np.round((pixels[:, 0] * 255 - 40) / 60).astype(int)
        numbers = np.round((pixels[:, 2] * 255 - 60 * labels) / 15).astype(int)
        np.testing.assert_array_equal(targets.argmax(1), labels)
        found += zip(labels.tolist(), numbers.tolist())
    size = given["steps_per_epoch"] * recipe.batch_size
    return [found[start:start + size] for start in range(0, len(found), size)]


EVERY = sorted((label, i) for label in range(CLASSES) for i in range(4))


def test_an_epoch_holds_every_photograph_once_and_follows_from_the_seed(stream):
    assert (stream.train_images, stream.test_images) == (12, 3)
    first, second, third = epochs(stream)
    assert sorted(first) == sorted(second) == sorted(third) == EVERY
    assert first != second != third != first and first != EVERY
    assert epochs(stream) == [first, second, third]
    assert epochs(stream, epoch=1) == [second, third]
    assert epochs(stream, seed=4) != [first, second, third]


def test_parts_of_a_batch_are_its_halves(stream):
    def batches(part):
        return list(stream.training(COLOURS, seed=3, part=part)["x"].as_numpy_iterator())

    whole, first, second = batches((0, 1)), batches((0, 2)), batches((1, 2))
    assert len(whole) == len(first) == len(second) == 9
    for expected, *halves in zip(whole, first, second):
        for array, *of_both in zip(expected, *halves):
            np.testing.assert_array_equal(np.concatenate(of_both), array)


def pixels(stream, **strength):
    """Returns a pixel, from 0 to 1, of each image of 40 epochs, and the classes."""
    preprocessing = dataclasses.replace(stream.preprocessing, mean=(0.1, 0.2, 0.3), std=(0.5, 0.2, 0.1))
    stream = dataclasses.replace(stream, preprocessing=preprocessing)
    batches = stream.training(dataclasses.replace(RECIPE, epochs=40, **strength), seed=3)["x"]
    images, targets = (np.concatenate(arrays) for arrays in zip(*batches.as_numpy_iterator()))
    assert np.ptp(images, (1, 2)).max() < 0.1
    return images[:, 8, 8] * preprocessing.std + preprocessing.mean, targets.argmax(1)


def test_lighting_of_an_epoch(stream):
    found, labels = pixels(stream, lighting=0.4)
    shift = found[:, 0] - (40 + 60 * labels) / 255
    expected = 0.4 * np.hypot(0.2175 * 0.5675, 0.0188 * 0.7192)  # the standard error is 3 % of it
    assert abs(shift.std() / expected - 1) < 0.15 and abs(shift.mean()) < 0.01


def test_colours_of_an_epoch(stream):
    """Of photographs of one colour the brightness alone moves the grey."""
    found, labels = pixels(stream, colour=0.4)
    of_class = np.array([np.mean([colour(label, i) for i in range(4)], 0) for label in range(CLASSES)]) @ GREY / 255
    brightness = found @ GREY / of_class[labels]  # blue, a ninth of grey, differs within a class
    assert 0.55 < brightness.min() < 0.65 and 1.35 < brightness.max() < 1.45 and abs(brightness.mean() - 1) < 0.04
    assert brightness.reshape(40, 12).std(1).min() > 0.08  # images of an epoch differ


def test_a_last_batch_that_is_not_full_is_left_out(stream):
    for epoch in epochs(stream, dataclasses.replace(RECIPE, batch_size=5)):
        assert len(set(epoch)) == 10


def test_the_same_image_is_cropped_anew_in_each_epoch_and_the_same_in_another_run(folder):
    photo = datasets.load(folder)
    photo = dataclasses.replace(photo, preprocessing=dataclasses.replace(photo.preprocessing, size=(16, 16)))
    recipe = dataclasses.replace(COLOURS, batch_size=12)
    a, b = (list(photo.training(recipe, seed=3)["x"].as_numpy_iterator()) for _ in range(2))
    for (x, _), (y, _) in zip(a, b):
        np.testing.assert_array_equal(x, y)
    means = [sorted(images.mean((1, 2, 3)).tolist()) for images, _ in a]
    assert not np.allclose(means[0], means[1])


def test_batches_of_photographs_are_mixed_as_those_in_memory(stream):
    """Each image of a mixed batch is a mixture of two of the plain batch, by the shares that its target tells."""
    changes = {"cutout": 4, "erasing": 0.5, "mixup": 0.5}
    recipe = dataclasses.replace(RECIPE, batch_size=6)
    for change in ({"mixup": 0.5}, {"cutmix": 1.0}, changes):
        plain, mixed, again = (
            list(stream.training(changed, seed=3)["x"].as_numpy_iterator())
            for changed in (recipe, *[dataclasses.replace(recipe, **change)] * 2)
        )
        assert len(mixed) == 3 * 12 // 6
        for number, ((x, y), (images, targets), (same, _)) in enumerate(zip(plain, mixed, again, strict=True)):
            expected = mixing.mix(x.copy(), y, dataclasses.replace(recipe, **change), np.random.default_rng(
                [3, number // 2, 1 + number % 2]  # seed, epoch and batch
            ))
            np.testing.assert_array_equal(images, expected[0])
            np.testing.assert_array_equal(targets, expected[1])
            np.testing.assert_array_equal(images, same)
            np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
    late = list(stream.training(dataclasses.replace(recipe, **changes), seed=3, epoch=2)["x"].as_numpy_iterator())
    np.testing.assert_array_equal(late[0][0], mixed[4][0])  # a run that goes on


def test_photographs_are_changed_by_randaugment(stream, monkeypatch):
    """As pixels of the crop, by draws that follow from seed and epoch."""
    recipe = dataclasses.replace(RECIPE, randaugment=(2, 9))

    def batches(recipe, epoch=0):
        return np.stack([images for images, _ in stream.training(recipe, 3, epoch)["x"].as_numpy_iterator()])

    changed, plain = batches(recipe), batches(RECIPE)
    np.testing.assert_array_equal(changed, batches(recipe))
    np.testing.assert_array_equal(changed[-3:], batches(recipe, epoch=2))
    assert np.abs(changed - plain).max((2, 3, 4)).astype(bool).mean() > 0.7
    monkeypatch.setattr(randaugment, "NAMES", ("solarize",))
    mean, std = (np.array(values) * 255 for values in (stream.preprocessing.mean, stream.preprocessing.std))
    whole = dataclasses.replace(recipe, randaugment=(1, 10))
    solarized = batches(whole)
    np.testing.assert_allclose(solarized * std + mean, 255 - np.round(plain * std + mean), atol=1.01)
    monkeypatch.setattr(randaugment, "NAMES", ("solarize", "identity"))  # each image has draws of its own
    assert 0.2 < (np.abs(batches(whole) - solarized).max((2, 3, 4)) < 1e-4).mean() < 0.8


def test_held_out_photographs_are_of_all_classes(stream):
    held = stream.hold_out(3)
    assert (held.train_images, held.test_images) == (9, 3)
    seen = [label for _, labels in held.test_views("single", held.preprocessing, 2) for label in labels.tolist()]
    if isinstance(stream.train, datasets.Files):
        assert seen == [0, 1, 2]
    trained = {image for epoch in epochs(held) for image in epoch}
    assert len(trained) == 9
    with pytest.raises(ValueError, match="Of 12 training images some must be left.*Received: 12 to hold out"):
        stream.hold_out(12)


def test_test_images_are_those_of_load_image(folder):
    data = datasets.load(folder)
    preprocessing = dataclasses.replace(data.preprocessing, size=(16, 16))
    batches = list(data.test_views("ten_crop", preprocessing, 2))
    assert [images.shape for images, _ in batches] == [(2, 10, 16, 16, 3), (1, 10, 16, 16, 3)]
    images = np.concatenate([images for images, _ in batches])
    for label in range(CLASSES):
        np.testing.assert_array_equal(images[label, 0], load_image(folder / f"class{label}" / "4.jpg", preprocessing))
    # What fit measures is the same, normalized.
    given = dataclasses.replace(data, preprocessing=preprocessing).validation(2)["validation_data"]
    assert len(given) == 2
    found = np.concatenate([x for x, _ in given.as_numpy_iterator()])
    np.testing.assert_allclose(found, kp.preprocess_input(images[:, 0], preprocessing), atol=1e-6)
    assert np.concatenate([y for _, y in given.as_numpy_iterator()]).tolist() == np.eye(3).tolist()


NETWORK = NetworkConfig((1, 1), (4, 6))


@pytest.mark.slow
def test_a_run_on_photographs_that_was_killed_ends_as_one_that_was_not(stream, tmp_path):
    arguments = {"model": NETWORK, "data": stream, "recipe": RECIPE, "seed": 5, "verbose": 0}
    log = kp.train(output=tmp_path / "whole", **arguments)
    with killed(2):
        kp.train(output=tmp_path / "killed", **arguments)
    resumed = kp.train(output=tmp_path / "killed", **arguments)
    assert [row["loss"] for row in log] == [row["loss"] for row in resumed] and len(log) == 3
    networks = [kp.load_run(tmp_path / name)[0] for name in ("whole", "killed")]
    for a, b in zip(*(network.get_weights() for network in networks)):
        np.testing.assert_array_equal(a, b)
    _, run = kp.load_run(tmp_path / "whole")
    assert run["data"]["preprocessing"]["size"] == [16, 16]
    report = kp.evaluate(networks[0], stream, verbose=0)
    assert report.images == 3 and f"{report.top1_error:.2f}" == log[-1]["test_error"]


def test_names_that_are_no_text_are_read(tmp_path):
    for label in (b"a", b"b\xff"):
        folder = os.path.join(os.fsencode(tmp_path), label)
        os.mkdir(folder)
        for i in range(5):
            Image.new("RGB", (20, 20)).save(os.fsdecode(os.path.join(folder, b"%d\xfe.png" % i)))
    stream = datasets.load(tmp_path, size=None)
    stream = dataclasses.replace(stream, preprocessing=dataclasses.replace(stream.preprocessing, size=(16, 16)))
    recipe = dataclasses.replace(RECIPE, batch_size=4, epochs=1)
    assert [x.shape for x, _ in stream.training(recipe, 0)["x"]] == [(4, 16, 16, 3)] * 2


def test_evaluation_at_another_crop(tmp_path):
    """What the network is given is what Pillow makes of the file."""
    for label in range(3):
        (tmp_path / "train" / str(label)).mkdir(parents=True)
        (tmp_path / "test" / str(label)).mkdir(parents=True)
        photograph().save(tmp_path / "train" / str(label) / "0.png")
        photograph(90, 120, label).save(tmp_path / "test" / str(label) / "0.png")
    seen = []

    def predict(images):
        seen.extend(images)
        return np.eye(3)[[0, 0, 2]]

    model = SimpleNamespace(output_shape=(None, 3), input_shape=(None, None, None, 3), predict_on_batch=predict)
    identity = kp.Preprocessing((0,) * 3, (1 / 255,) * 3, (224, 224), 0.875, "bilinear")
    report = kp.evaluate(model, tmp_path, identity, crop=40, resize=45, verbose=0)
    assert (report.crop, report.images, report.wrong) == ((40, 40), 3, 1)
    for label, found in enumerate(seen):
        image = photograph(90, 120, label).resize((60, 45), Image.Resampling.BILINEAR).crop((10, 2, 50, 42))
        np.testing.assert_allclose(found, np.asarray(image), atol=1e-3)
    with pytest.raises(ValueError, match="`resize` must be at least the crop, 20. Received: 10"):
        kp.evaluate(model, tmp_path, crop=20, resize=10)
    with pytest.raises(ValueError, match=r"takes images of shape \(8, 8, 3\).*height and width None"):
        kp.evaluate(kp.ResNet(NETWORK, input_shape=(8, 8, 3), classes=3), tmp_path, crop=20)


def test_unreadable_photographs_are_named_when_they_are_met(folder, tmp_path):
    for label in range(2):
        (tmp_path / str(label)).mkdir()
        for i in range(10):
            (tmp_path / str(label) / f"{i}.jpg").write_bytes((folder / "class0" / "1.jpg").read_bytes())
    for name in ("0/3.jpg", "1/6.jpg"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:300])
    with pytest.raises(ValueError, match=r"2 files of .* cannot be read as images; remove them:\n  .*3.jpg\n  .*6.jpg"):
        kp.train(NETWORK, tmp_path, RECIPE, tmp_path / "run", verbose=0)


def test_steps_of_one_call_that_cross_epochs_are_refused(stream, tmp_path):
    with pytest.raises(ValueError, match=r"`steps_per_execution` must divide the \d+ steps of an epoch. Received: 99"):
        kp.train(NETWORK, stream, RECIPE, tmp_path / "run", engine=kp.Engine(steps_per_execution=99))
    assert not (tmp_path / "run").exists()


def test_other_errors_of_tensorflow_do_not_read_every_photograph(stream, monkeypatch):
    monkeypatch.setattr(streams, "_refuse", None)
    with pytest.raises(tf.errors.ResourceExhaustedError), streams.naming_unreadable(stream):
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")


def test_recipes_and_data_that_do_not_go_together():
    images = {"x_train": np.zeros((8, 8, 8, 3), "uint8"), "y_train": np.arange(8) % 2}
    images |= {"x_test": images["x_train"], "y_test": images["y_train"]}
    with pytest.raises(ValueError, match="'scale_aspect' crops photographs of any size.*of arrays have one size"):
        kp.train(NETWORK, images, RECIPE)
    with pytest.raises(ValueError, match="augmentation='pad_crop' does not know colour and lighting"):
        dataclasses.replace(RECIPE, augmentation="pad_crop", colour=0.4, lighting=0.1)
