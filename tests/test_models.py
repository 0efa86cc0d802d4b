"""The builders: their arguments, and what loading weights into them does."""
import dataclasses
import inspect
import shutil

import h5py
import helpers
import keras
import numpy as np
import peers
import pytest

import keras_preact as kp
from keras_preact.networks import files
from keras_preact.networks.architectures import CONFIGS
from keras_preact.zoo import index

CIFAR = 20, 32, 44, 56, 110, 1202, 164, 272, 542, 1001
IMAGENET = 10, 12, 14, 16, 18, 26, 34, 50, 101, 152, 200, 269
IMAGES = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module")
def source():
    model = kp.PreActResNet20()
    helpers.randomize(model, seed=1)
    return model


@pytest.fixture(scope="module", params=[".weights.h5", ".keras"])
def file(request, source, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / f"preact20{request.param}"
    source.save_weights(path) if request.param == ".weights.h5" else source.save(path)
    return path


def test_every_network_of_the_paper_has_a_builder():
    names = [f"{family}{depth}" for family in ("PreActResNet", "ResNet") for depth in CIFAR + IMAGENET]
    assert sorted(CONFIGS) == sorted(names)
    for name in names:
        assert getattr(kp, name).__name__ == name and name in getattr(kp, name).__doc__


def test_the_signature_is_that_of_keras_applications():
    assert list(inspect.signature(kp.PreActResNet200).parameters) == list(
        inspect.signature(keras.applications.ResNet50V2).parameters
    )
    assert inspect.signature(kp.PreActResNet200).parameters["weights"].default is None


@pytest.mark.parametrize("name, units", [
    ("PreActResNet164", (18, 18, 18)), ("PreActResNet1001", (111, 111, 111)), ("PreActResNet110", (18, 18, 18)),
    ("PreActResNet1202", (200, 200, 200)), ("PreActResNet200", (3, 24, 36, 3)), ("PreActResNet269", (3, 30, 48, 8)),
    ("PreActResNet10", (1, 1, 1, 1)), ("ResNet12", (2, 1, 1, 1)), ("PreActResNet14", (2, 2, 1, 1)),
    ("ResNet16", (2, 2, 2, 1)), ("PreActResNet26", (3, 3, 3, 3)),
])
def test_units_in_each_stage(name, units):
    assert CONFIGS[name].units == units


def test_list_models():
    info = {m.name: m for m in kp.list_models("PreAct*")}
    assert len(info) == 22
    # shared with the literature: 1.7 M parameters, 0.25 G multiply-adds
    assert info["PreActResNet110"][:4] == ("PreActResNet110", 1_727_962, 252_887_680, (32, 32))
    assert info["PreActResNet200"].input_size == (224, 224)
    assert info["PreActResNet20"].weights == (
        "cifar10", "cifar10_paper", "cifar100", "cifar10_tf2cv", "cifar100_tf2cv", "svhn", "svhn_tf2cv",
    )
    assert info["PreActResNet56"].weights[:3] == ("cifar10_30epochs", "cifar10", "cifar10_tf2cv")
    assert info["PreActResNet44"].weights == ()
    with pytest.raises(ValueError, match="No model is named 'VGG16'.*PreActResNet20"):
        kp.list_models("VGG16")


def test_list_weights():
    weight, paper, hundred, *others = kp.list_weights("PreActResNet20")
    assert (paper.tag, paper.dataset, paper.classes) == ("cifar10_paper", "cifar10", 10)
    assert (weight.tag, weight.dataset, weight.classes, weight.measured["images"]) == ("cifar10", "cifar10", 10, 10_000)
    assert (hundred.tag, hundred.classes, hundred.measured["wrong"]) == ("cifar100", 100, 3161)
    assert [other.tag for other in others] == ["cifar10_tf2cv", "cifar100_tf2cv", "svhn_tf2cv"]
    assert kp.list_weights("ResNet44") == []


def test_a_file_gives_the_network_it_was_saved_from(source, file):
    np.testing.assert_array_equal(kp.PreActResNet20(weights=file)(IMAGES), source(IMAGES))


def test_other_classes_load_all_but_the_head(source, file):
    with pytest.warns(UserWarning, match="all layers but 'predictions'.*for 7 classes where the weights have 10"):
        model = kp.PreActResNet20(weights=str(file), classes=7)
    loaded, wanted = helpers.weights_of(model), helpers.weights_of(source)
    assert loaded.pop("predictions/kernel").shape == (64, 7) and loaded.pop("predictions/bias").shape == (7,)
    for name, value in loaded.items():
        np.testing.assert_array_equal(value, wanted[name])


def test_without_the_top_the_features_are_those_of_the_file(source, file):
    features = keras.Model(source.input, source.get_layer("avg_pool").output)(IMAGES)
    np.testing.assert_array_equal(kp.PreActResNet20(include_top=False, weights=file, pooling="avg")(IMAGES), features)


def test_a_headless_file_fits_a_headless_network_and_warns_with_a_top(tmp_path):
    path = tmp_path / "headless.weights.h5"
    kp.PreActResNet20(include_top=False).save_weights(path)
    kp.PreActResNet20(include_top=False, weights=path)
    with pytest.warns(UserWarning, match="initialised at random, for 10 classes where the weights have no such layer"):
        kp.PreActResNet20(weights=path)


def test_weights_of_a_model_that_was_trained_load_without_its_optimizer(source, tmp_path):
    source.compile(keras.optimizers.SGD(0.0, 0.9), "mse", jit_compile=False)
    source.optimizer.build(source.trainable_variables)
    source.save_weights(tmp_path / "trained.weights.h5")
    np.testing.assert_array_equal(kp.PreActResNet20(weights=tmp_path / "trained.weights.h5")(IMAGES), source(IMAGES))


@pytest.mark.parametrize("builder, pattern", [
    (kp.PreActResNet32, r"stage1_unit4_bn1: not in the file"),
    (kp.ResNet20, r"stage1_unit1_bn1: not in the file"),
])
def test_a_file_of_another_network_is_refused(builder, pattern, file):
    # A .keras file says what it is.
    pattern = pattern if file.suffix == ".h5" else "holds weights of PreActResNet20. Received: the builder"
    with pytest.raises(ValueError, match=pattern):
        builder(weights=file)


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_weights_for_another_number_of_channels_are_those_of_timm(channels, source, file):
    torch, timm = pytest.importorskip("torch"), peers.timm()

    with pytest.warns(UserWarning, match=rf"trained on images of 3 channels, .* adapted to {channels}"):
        model = kp.PreActResNet20(weights=file, input_shape=(32, 32, channels))
    before, after = (network.get_layer("stem_conv").get_weights()[0] for network in (source, model))
    theirs = timm.models.adapt_input_conv(channels, torch.from_numpy(before.transpose(3, 2, 0, 1)))
    np.testing.assert_allclose(after.transpose(3, 2, 0, 1), theirs, rtol=1e-6)
    assert model.preprocessing is None and model.labels is None


def test_a_network_by_its_name_as_text():
    with pytest.warns(UserWarning, match="initialised at random, for 5 classes"):
        model = kp.create_model("PREActresnet20.cifar10", classes=5)
    expected = kp.PreActResNet20(weights="cifar10").get_layer("stem_conv").get_weights()[0]
    np.testing.assert_array_equal(model.get_layer("stem_conv").get_weights()[0], expected)
    assert model.name == "preactresnet20" and model.output_shape == (None, 5)
    assert kp.create_model("ResNet20", include_top=False).output_shape == (None, None, None, 64)
    with pytest.raises(ValueError, match="Received: 'preactresnet21'; did you mean 'PreActResNet"):
        kp.create_model("preactresnet21.cifar10")
    with pytest.raises(ValueError, match="behind the dot or as `weights`. Received: 'preactresnet20.cifar10' and None"):
        kp.create_model("preactresnet20.cifar10", weights=None)
    with pytest.raises(ValueError, match=r"`name` must be a text, as list_models\(\) has them. Received: 20"):
        kp.create_model(20)


def test_a_network_tells_where_its_weights_are_from_but_no_path_of_a_machine():
    (file,) = kp.pull("PreActResNet20", "cifar10")
    origins = [kp.PreActResNet20(weights=weights).origin for weights in (None, "cifar10", file, str(file))]
    assert origins == [None, "PreActResNet20(weights='cifar10')", None, None]


def test_preprocessing_follows_the_input():
    model = kp.PreActResNet20(weights="cifar10", input_shape=(64, 48, 3))
    known = kp.PreActResNet20(weights="cifar10").preprocessing
    assert model.preprocessing == dataclasses.replace(known, size=(64, 48))
    assert kp.PreActResNet20(weights="cifar10", input_shape=(None, None, 3)).preprocessing == known
    with pytest.warns(UserWarning, match="adapted to 1"):
        grey = kp.PreActResNet20(weights="cifar10", input_shape=(40, 40, 1))
    assert grey.preprocessing.size == (40, 40) and grey.preprocessing.mean == pytest.approx([1.4201 / 3])
    with pytest.warns(UserWarning, match="adapted to 4"):
        four = kp.PreActResNet20(weights="cifar10", input_shape=(32, 32, 4))
    assert four.preprocessing.std == (0.247, 0.2435, 0.2616, 0.247)


def test_weights_load_behind_layers_of_the_users_own(source, file):
    inputs = keras.Input((32, 32, 3))
    doubled = keras.layers.Conv2D(3, 1, name="own", use_bias=False)(inputs)
    model = kp.PreActResNet20(weights=file, input_tensor=doubled)
    model.get_layer("own").set_weights([2 * np.eye(3, dtype="float32")[None, None]])
    np.testing.assert_allclose(model(IMAGES), source(2 * IMAGES), rtol=1e-4, atol=1e-5)


def test_a_refused_file_leaves_the_network_as_it_was(source, file):
    layers = files.read(file)
    layers["closing_bn"] = [array[:-1] for array in layers["closing_bn"]]
    model = kp.PreActResNet20()
    before = helpers.weights_of(model)
    with pytest.raises(ValueError, match=r"nothing was loaded.*\n  closing_bn: .* shapes 64, .* file 63, "):
        files.assign(model, layers, "a file")
    for name, value in helpers.weights_of(model).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("layer, place, value, message", [
    ("stem_conv", 0, np.nan, "stem_conv/kernel: 1 of 432 values are not finite"),
    ("predictions", 1, -np.inf, "predictions/bias: 1 of 10 values are not finite"),
    ("stem_conv", 0, 1e300, "stem_conv/kernel: 1 of 432 values are not finite in float32"),
    ("closing_bn", 3, -1e-3, "closing_bn/moving_variance: 1 of 64 variances are negative"),
    ("stem_conv", 0, np.int64, "stem_conv/kernel: values of the type int64, not of a floating-point type"),
    ("stem_conv", 0, bool, "stem_conv/kernel: values of the type bool"),
    ("stem_conv", 0, "S8", r"stem_conv/kernel: values of the type \|S8"),
    ("stem_conv", 0, complex, "stem_conv/kernel: values of the type complex128"),
])
def test_values_that_are_no_weights_are_refused(layer, place, value, message, source, tmp_path):
    path = tmp_path / "own.weights.h5"
    source.save_weights(path)
    with h5py.File(path, "r+") as h5:
        (group,) = (g["vars"] for g in h5["layers"].values() if g["vars"].attrs.get("name") == layer)
        values = group[str(place)][()]
        if isinstance(value, float):
            values = values.astype("float64") if value == 1e300 else values
            values.flat[1] = value
        else:
            values = values.astype(value)
        del group[str(place)]
        group[str(place)] = values
    model = kp.PreActResNet20()
    before = helpers.weights_of(model)
    with pytest.raises(ValueError, match=rf"{path.name} do not fit .*nothing was loaded.*\n  {message}"):
        files.assign(model, files.read(path), path)
    for name, kept in helpers.weights_of(model).items():
        np.testing.assert_array_equal(kept, before[name])


def test_half_precision_is_a_floating_point_type(source, file):
    model, layers = kp.PreActResNet20(), files.read(file)
    files.assign(model, {name: [a.astype("float16") for a in arrays] for name, arrays in layers.items()}, "halves")
    np.testing.assert_array_equal(model.get_weights()[0], source.get_weights()[0].astype("float16"))


def test_a_truncated_file_is_refused(file, tmp_path):
    path = tmp_path / file.name
    path.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(ValueError, match="truncated or damaged.*Copy or download it again"):
        kp.PreActResNet20(weights=path)


def test_files_that_are_no_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist: .*none.weights.h5"):
        kp.PreActResNet20(weights=tmp_path / "none.weights.h5")
    (tmp_path / "model.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match="must name a .weights.h5 or .keras file. Received: .*model.pth"):
        kp.PreActResNet20(weights=tmp_path / "model.pth")


def test_an_unknown_tag_lists_those_there_are():
    with pytest.raises(ValueError, match=(
        r"PreActResNet20 has 'cifar10' of keras_preact, 8.06 % \(last epoch\); .*"
        r"; 'cifar100_tf2cv' of pytorchcv, 30.22 % \(best epoch on the test set\); .*Received: 'cifar1000'"
    )):
        kp.PreActResNet20(weights="cifar1000")
    with pytest.raises(ValueError, match="ResNet44 has no published weights.*'cifar10', which there is for PreActRes"):
        kp.ResNet44(weights="cifar10")


def test_a_damaged_or_missing_published_file_is_refused(tmp_path, monkeypatch):
    weight, *_ = kp.list_weights("PreActResNet20")
    index.upstream()  # is read once, from the folder as it is
    path = tmp_path / weight.file
    shutil.copyfile(index.folder() / weight.file, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(index, "folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=f"damaged: .*{weight.sha256}. Install the package again"):
        kp.PreActResNet20(weights="cifar10")
    path.unlink()
    with pytest.raises(ValueError, match="missing: .*Install the package again"):
        kp.PreActResNet20(weights="cifar10")


@pytest.mark.parametrize("arguments, pattern", [
    ({"classes": 5, "include_top": False}, "classes=5"),
    ({"classes": 0}, "positive integer. Received: 0"),
    ({"pooling": "min"}, "None, 'avg' or 'max'. Received: 'min'"),
])
def test_contradictions_are_found_before_the_weights_are_read(arguments, pattern, monkeypatch):
    monkeypatch.setattr(files, "read", None)
    with pytest.raises(ValueError, match=pattern):
        kp.PreActResNet20(weights="cifar10", **arguments)
