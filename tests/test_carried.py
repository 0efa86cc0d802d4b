"""What is known of a network stays with it: saved by Keras alone, opened by Keras and by us, under other heads."""
import json
import zipfile
from pathlib import Path

import helpers
import keras
import numpy as np
import pytest

import keras_preact as kp
from keras_preact import cli

FLOWERS = "daisy", "rose", "tulip"
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 48, 40, 3), dtype="uint8")


@pytest.fixture(scope="module")
def tuned():
    """A network as fine-tuning leaves it: another size, another head, labels of its own."""
    with pytest.warns(UserWarning, match="initialised at random, for 3 classes"):
        model = kp.PreActResNet20(weights="cifar10", input_shape=(48, 40, 3), classes=3)
    model.labels = FLOWERS
    return model


@pytest.fixture(scope="module")
def file(tuned, tmp_path_factory):
    path = tmp_path_factory.mktemp("tuned") / "flowers.keras"
    tuned.save(path)
    return path


def outputs(model, preprocessing):
    return np.array(model(kp.preprocess_input(IMAGES, preprocessing), training=False))


def test_a_saved_network_keeps_what_is_known_of_it(tuned, file, tmp_path):
    known = tuned.preprocessing
    assert known.size == (48, 40) and known.mean == (0.4914, 0.4822, 0.4465)
    expected = outputs(tuned, known)
    np.testing.assert_array_equal(outputs(keras.saving.load_model(file), known), expected)
    model = kp.load_model(file)
    np.testing.assert_array_equal(outputs(model, known), expected)
    assert (model.preprocessing, model.labels) == (known, FLOWERS)
    model.save(tmp_path / "again.keras")
    again = kp.load_model(tmp_path / "again.keras")
    assert (again.preprocessing, again.labels) == (known, FLOWERS)


def test_a_builder_takes_the_file(tuned, file):
    model = kp.PreActResNet20(weights=file)
    assert (model.preprocessing, model.labels) == (tuned.preprocessing, FLOWERS)
    np.testing.assert_array_equal(outputs(model, tuned.preprocessing), outputs(tuned, tuned.preprocessing))
    with pytest.raises(ValueError, match="holds weights of PreActResNet20. Received: the builder PreActResNet32"):
        kp.PreActResNet32(weights=file)


def test_networks_inside_other_models_hand_on_their_preprocessing(tmp_path):
    base = kp.PreActResNet20(weights="cifar10", include_top=False, pooling="avg", input_shape=(32, 32, 3))
    layers = keras.Model(base.inputs, keras.layers.Dense(2)(base.outputs[0]))
    nested = keras.Sequential([keras.Input((32, 32, 3)), base, keras.layers.Dense(2)])
    for model in (layers, nested):
        model.save(tmp_path / "a.keras")
        opened = kp.load_model(tmp_path / "a.keras")
        assert (opened.preprocessing, opened.labels) == (base.preprocessing, None)


def normalizing(kind, base, tmp_path):
    """A model that takes pixels, in three ways."""
    inputs = keras.Input((32, 32, 3))
    if kind == "built behind it":
        return kp.PreActResNet20(weights="cifar10", input_tensor=kp.preprocessing_layer(base)(inputs))
    augmentation = [keras.layers.RandomFlip("horizontal")] * (kind == "augmented")
    model = keras.Sequential([inputs, *augmentation, kp.preprocessing_layer(base), base])
    if kind != "saved":
        return model
    model.save(tmp_path / "of_pixels.keras")
    return kp.load_model(tmp_path / "of_pixels.keras")


@pytest.mark.parametrize("kind", ["saved", "built behind it", "fresh", "augmented"])
def test_a_model_that_normalizes_its_images_gets_pixels(kind, samples, tmp_path):
    """Normalized twice, 87.5 % of these are wrong."""
    base = kp.PreActResNet20(weights="cifar10")
    model = normalizing(kind, base, tmp_path)
    data = samples["cifar10"][0][:200], samples["cifar10"][1][:200]
    right = kp.evaluate(base, data, verbose=0)
    given = getattr(model, "preprocessing", None)
    if kind in ("saved", "built behind it"):
        assert (given.mean, given.std, given.size) == ((0, 0, 0), (1 / 255,) * 3, (32, 32))
        np.testing.assert_array_equal(kp.preprocess_input(data[0], model), data[0])
        assert kp.evaluate(model, data, verbose=0).wrong == right.wrong == 15
        model.labels = base.labels
        with kp.predictor(model, "keras") as predict:
            np.testing.assert_allclose(predict(data[0]), base.predict(kp.preprocess_input(data[0], base)), atol=1e-4)
        model.save(tmp_path / "again.keras")
        assert kp.load_model(tmp_path / "again.keras").preprocessing == given
        if kind == "built behind it":
            assert kp.PreActResNet20(weights=tmp_path / "again.keras").preprocessing is None
    else:
        both = {"x_train": data[0], "y_train": data[1], "x_test": data[0], "y_test": data[1]}
        assert kp.evaluate(model, both, verbose=0).wrong == 15  # though these have statistics of their own
    with pytest.raises(ValueError, match="normalizes its images itself.* mean 0 and the std 1/255"):
        kp.evaluate(model, data, base.preprocessing)
    model.preprocessing, model.labels = base.preprocessing, base.labels
    with pytest.raises(ValueError, match="normalizes its images itself"):
        kp.predictor(model, "keras")


def test_what_other_layers_before_a_network_do_to_its_images_is_not_known():
    pooled = keras.layers.AveragePooling2D(2)(keras.Input((64, 64, 3)))
    model = kp.PreActResNet20(weights="cifar10", input_tensor=pooled)
    assert model.preprocessing is None and len(model.labels) == 10


def test_networks_that_disagree_hand_on_nothing(tmp_path):
    inputs = keras.Input((16, 16, 3))
    arguments = {"include_top": False, "pooling": "avg", "input_shape": (16, 16, 3)}
    one, other = (kp.PreActResNet20(name=name, **arguments) for name in ("one", "other"))
    one.preprocessing = kp.Preprocessing((0.5,) * 3, (0.5,) * 3, (16, 16))
    keras.Model(inputs, keras.layers.Add()([one(inputs), other(inputs)])).save(tmp_path / "a.keras")
    assert kp.load_model(tmp_path / "a.keras").preprocessing is None


def test_other_models_carry_nothing(tmp_path):
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "a.keras")
    model = kp.load_model(tmp_path / "a.keras")
    assert model.preprocessing is None and model.labels is None


def test_networks_without_weights_know_nothing_and_say_so(tmp_path):
    model = helpers.build(helpers.tiny(), (8, 8, 3), 2)
    assert model.preprocessing is None and model.labels is None
    model.save(tmp_path / "a.keras")
    assert kp.load_model(tmp_path / "a.keras").preprocessing is None


def test_commands_take_the_file(tuned, file, tmp_path, capsys):
    image = Path(__file__).parent.parent / "examples" / "images" / "cat_0000.png"
    assert cli.main(["classify", "--model", str(file), "--top", "3", "--json", str(image)]) == 0
    found = json.loads(capsys.readouterr().out)["predictions"]
    classes = {best["label"]: best["probability"] for best in found}
    loaded = kp.load_image(image, tuned)
    assert loaded.shape == (48, 40, 3)
    expected = np.array(tuned(kp.preprocess_input(loaded, tuned)[None], training=False))[0]
    assert [classes[label] for label in FLOWERS] == pytest.approx(list(expected), abs=1e-4)
    assert cli.main(["export", str(file), "--output", str(tmp_path / "served")]) == 0
    capsys.readouterr()
    assert (tmp_path / "served" / "1" / "assets" / "labels.txt").read_text().split() == list(FLOWERS)


@pytest.mark.parametrize("change, pattern", [
    (b"[]", "is not what keras_preact writes"), (b"{", "cannot be read"),
    (b'{"config": {"gamma": 1}, "preprocessing": null, "labels": null}', "of a newer keras_preact"),
    (b'{"config": null, "preprocessing": {"mean": [0.5]}, "labels": null}', "of a newer keras_preact"),
])
def test_a_file_that_carries_something_else(change, pattern, file, tmp_path):
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tmp_path / "a.keras", "w") as new:
        for name in old.namelist():
            new.writestr(name, change if name == "assets/keras_preact.json" else old.read(name))
    with pytest.raises(ValueError, match=pattern) as error:
        kp.load_model(tmp_path / "a.keras")
    assert str(tmp_path / "a.keras") in str(error.value)


@pytest.mark.parametrize("place, value, pattern", [
    (0, np.nan, r"values that are no weights; .*\n  .*gamma: 1 of 64 values are not finite"),
    (3, -1, r"\n  .*moving_variance: 1 of 64 variances are negative"),
])
def test_values_that_are_no_weights_are_refused_as_builders_do(place, value, pattern, tuned, tmp_path):
    other = keras.models.clone_model(tuned)
    values = other.get_layer("closing_bn").get_weights()
    values[place][5] = value
    other.get_layer("closing_bn").set_weights(values)
    other = keras.Sequential([keras.Input((48, 40, 3)), other])
    other.save(tmp_path / "a.keras")
    with pytest.raises(ValueError, match=pattern) as error:
        kp.load_model(tmp_path / "a.keras")
    assert str(tmp_path / "a.keras") in str(error.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must name a .keras file; a builder takes files of weights. Received: a.h5"):
        kp.load_model("a.h5")
    with pytest.raises(ValueError, match="does not exist"):
        kp.load_model(tmp_path / "a.keras")
    (tmp_path / "a.keras").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=f"{tmp_path / 'a.keras'} cannot be read"):
        kp.load_model(tmp_path / "a.keras")
