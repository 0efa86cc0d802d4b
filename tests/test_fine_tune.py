"""Runs that fine-tune: what is trained when, what stays to the bit, and what the network keeps of its weights."""
import dataclasses

import keras
import numpy as np
import pytest
from helpers import killed, weights_of
from PIL import Image

import keras_preact as kp
from keras_preact.networks.building import ResNet
from keras_preact.networks.config import NetworkConfig
from keras_preact.training import recipes
from keras_preact.training.engine import Engine, train
from keras_preact.training.forms.looping import unrolled
from keras_preact.training.recipes import Recipe
from keras_preact.training.runs import load_run, read_log

RAW = kp.Preprocessing((0.43, 0.47, 0.51), (0.2, 0.24, 0.27), size=(8, 8))
# A learning rate at which two epochs of a few images show.
SHORT = {"epochs": 2, "batch_size": 8, "learning_rate": 0.1, "padding": 1}


def data_of(classes, images=24):
    rng = np.random.default_rng(classes)
    labels = (np.arange(images) % classes).astype("uint8")
    x = (rng.integers(0, 100, (images, 8, 8, 3)) + 40 * labels[:, None, None, None]).astype("uint8")
    return {"x_train": x, "y_train": labels, "x_test": x[:9], "y_test": labels[:9]}


def test_a_network_out_of_a_file_is_fine_tuned(base, tmp_path):
    base.save(tmp_path / "base.keras")
    model = kp.fine_tune(kp.load_model(tmp_path / "base.keras"), data_of(3), tmp_path / "run", verbose=0, **SHORT)
    assert model.output_shape == (None, 3) and model.origin is None


@pytest.fixture
def base():
    keras.utils.set_random_seed(0)
    model = ResNet(NetworkConfig((3, 1), (4, 6)), input_shape=(8, 8, 3), classes=5)
    for norm in (layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)):
        norm.moving_mean.assign(keras.random.normal(norm.moving_mean.shape, seed=1))
    model.preprocessing, model.labels = RAW, [f"old {i}" for i in range(5)]
    return model


def body(weights):
    """Names of the weights of all layers but the last."""
    return [name for name in weights if "predictions" not in name]


def changed(before, after):
    """Those of `body` that are other ones."""
    return {name for name in body(before) if not np.array_equal(before[name], after[name])}


def test_a_run_keeps_frozen_statistics_and_preprocessing_and_has_the_new_labels(base, tmp_path):
    before, base.origin = weights_of(base), "hf://owner/name@abc"
    model = kp.fine_tune(base, data_of(3), tmp_path, bn="frozen", verbose=0, **SHORT)
    assert "base_model: owner/name\n" in kp.push_to_hub(tmp_path, "owner/flowers", dry_run=True).card
    assert not changed(before, weights_of(base)) and base.output_shape == (None, 5)
    assert model.output_shape == (None, 3) and len(model.labels) == 3
    assert (model.preprocessing.mean, model.preprocessing.std) == (RAW.mean, RAW.std)
    assert changed(before, weights_of(model)) == {name for name in body(before) if "_bn" not in name}
    images, labels = data_of(3)["x_test"], data_of(3)["y_test"]
    normalized = (images / np.float32(255) - np.float32(RAW.mean)) / np.float32(RAW.std)
    wrong = np.sum(model.predict(normalized).argmax(-1) != labels)
    assert read_log(tmp_path / "log.csv")[-1]["test_error"] == f"{100 * wrong / 9:.2f}"
    assert load_run(tmp_path)[0].labels == model.labels


@pytest.mark.slow
@pytest.mark.parametrize("loop", [True, False])
def test_the_head_is_trained_alone_at_first_and_a_killed_run_ends_as_one_that_was_not(base, tmp_path, loop):
    before, given = weights_of(base), SHORT | {"engine": Engine(loop=loop), "verbose": 0}
    after_one = {}
    with killed(1, look=lambda network: after_one.update(weights_of(unrolled(network)))):
        kp.fine_tune(base, data_of(3), tmp_path / "killed", **given)
    assert after_one["predictions/kernel"].shape == (6, 3)
    assert changed(before, after_one) == {name for name in before if "moving" in name}
    resumed = kp.fine_tune(base, data_of(3), tmp_path / "killed", **given)
    model = kp.fine_tune(base, data_of(3), tmp_path / "whole", **given)
    assert changed(before, weights_of(model)) == set(body(before))
    for a, b in zip(model.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    logs = (read_log(tmp_path / run / "log.csv")[-1] for run in ("whole", "killed"))
    assert len({log["loss"] for log in logs}) == 1


def test_a_network_that_knows_the_classes_keeps_its_last_layer(base, tmp_path):
    data = data_of(5)
    base.labels = tuple(map(str, range(5)))
    model = kp.fine_tune(base, data, tmp_path, verbose=0, **SHORT | {"learning_rate": 1e-6})
    np.testing.assert_allclose(
        model.get_layer("predictions").get_weights()[0], base.get_layer("predictions").get_weights()[0], atol=1e-4
    )
    base.labels = base.labels[::-1]  # as many, but others: that layer is a new one
    model = kp.fine_tune(base, data, tmp_path / "others", verbose=0, **SHORT | {"learning_rate": 1e-6})
    assert np.abs(
        model.get_layer("predictions").get_weights()[0] - base.get_layer("predictions").get_weights()[0]
    ).max() > 0.1


def photographs(folder):
    rng = np.random.default_rng(0)
    for label in range(3):
        (folder / f"class{label}").mkdir(parents=True)
        for i in range(10):
            image = rng.integers(0, 100, (12, 14 + i, 3)) + 70 * label
            Image.fromarray(image.astype("uint8")).save(folder / f"class{label}" / f"{i}.jpg")
    return folder


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="photographs are decoded by TensorFlow")
def test_a_folder_of_photographs_is_cropped_to_the_size_that_is_asked_for(base, tmp_path):
    folder = photographs(tmp_path / "flowers")
    model = kp.fine_tune(base, folder, tmp_path / "12", size=12, verbose=0, **SHORT)
    assert model.labels == ("class0", "class1", "class2") and model.preprocessing.size == (12, 12)
    assert (model.preprocessing.mean, model.preprocessing.std) == (RAW.mean, RAW.std)


@pytest.mark.parametrize("images, photos, expected", [
    (100, True, (50, 32, "scale_aspect")), (2400, True, (15, 32, "scale_aspect")), (3600, False, (10, 32, "pad_crop")),
    (50_000, False, (5, 32, "pad_crop")), (20, True, (50, 20, "scale_aspect")),
])
def test_fewer_images_are_seen_more_often(images, photos, expected):
    recipe = recipes.for_fine_tuning(images, photos)
    assert (recipe.epochs, recipe.batch_size, recipe.augmentation) == expected


def test_what_cannot_be_fine_tuned_is_refused(base, tmp_path):
    def tune(model=base, data=None, **changes):
        kp.fine_tune(model, data or data_of(3), tmp_path / "run", **changes)

    with pytest.raises(ValueError, match="`size` is for photographs, and the images of .* have one size. Received: 16"):
        tune(size=16)
    with pytest.raises(TypeError, match="epoch"):
        tune(epoch=3)
    with pytest.raises(ValueError, match="`head_epochs` must be less than the 1 epochs. Received: 1"):
        tune(epochs=1)
    with pytest.raises(ValueError, match="`bn` must be one of 'trained', 'frozen'. Received: 'forzen'"):
        tune(bn="forzen")
    base.preprocessing = None
    with pytest.raises(ValueError, match="network of the zoo with trained weights, whose `preprocessing` is set"):
        tune()
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)], name="mine")
    with pytest.raises(ValueError, match="must be a network of the zoo .* Received: mine with preprocessing=None"):
        tune(other)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("field, value", [("head_epochs", 1), ("layer_decay", 0.5), ("bn", "frozen")])
def test_what_is_for_trained_weights_is_refused_without_them(field, value, tmp_path):
    recipe = dataclasses.replace(Recipe("tiny", "a test", 2, batch_size=8, padding=1), **{field: value})
    with pytest.raises(ValueError, match=f"{field} of a recipe are for a run that starts from trained weights"):
        train(NetworkConfig((1, 1), (4, 6)), data_of(3), recipe, tmp_path)


@pytest.mark.parametrize("changes", [{"bn": "frozen"}, {"optimizer": "adamw"}, {"accumulate": 2}])
def test_loops_are_refused_where_they_cannot_be(changes, base, tmp_path):
    with pytest.raises(ValueError, match="Units are not looped with stochastic depth, frozen batch normalization"):
        kp.fine_tune(base, data_of(3), tmp_path, engine=Engine(loop=True), **SHORT | changes)
