"""SavedModels: their layout, and what their signatures compute, against Pillow, NumPy and values found by hand."""
import io
import json
import os
import stat
from pathlib import Path

import keras
import numpy as np
import pytest
import serving_rules
from helpers import HALF, LABELS, build, randomize, run_python, slow, tiny
from PIL import Image

import keras_preact as kp
from keras_preact import export_savedmodel
from keras_preact.exporting import preparation, savedmodel
from keras_preact.networks.building import ResNet
from keras_preact.networks.config import NetworkConfig

tf = pytest.importorskip("tensorflow")

PIXELS = ("serving_default",)  # alone is written in a third of the time
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModels are TensorFlow's")

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "examples" / "images").glob("*.png"))
PHOTO = Image.open(ROOT / "tests" / "data" / "cifar10_sample.webp").convert("RGB")


@pytest.fixture(scope="module")
def model():
    return kp.PreActResNet20(weights="cifar10")


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return export_savedmodel(model, tmp_path_factory.mktemp("models") / "preact")


@pytest.fixture(scope="module")
def signatures(exported):
    loaded = tf.saved_model.load(str(exported.path))
    return {name: numpy_function(function, loaded) for name, function in loaded.signatures.items()}


def numpy_function(function, loaded):
    def call(values, loaded=loaded):  # which holds the variables
        (name,) = function.structured_input_signature[1]
        return {key: value.numpy() for key, value in function(**{name: tf.constant(values)}).items()}

    return call


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def by_pillow(model, files, preprocessing=None):
    """The probabilities of the zoo's own pipeline, in NumPy and Pillow."""
    preprocessing = preprocessing or model.preprocessing
    images = np.stack([kp.load_image(io.BytesIO(file), preprocessing) for file in files])
    return model.predict_on_batch(kp.preprocess_input(images, preprocessing))


def tiny_model(size=(16, 16), seed=0, **changes):
    model = build(tiny(**changes), (*size, 3), seed=seed)
    return keras.Model(model.input, keras.layers.Softmax()(model.output))


def test_the_layout_is_that_of_tf_serving(exported):
    assert exported.format == "savedmodel" and exported.path.parts[-2:] == ("preact", "1")
    assert [child.name for child in exported.path.parent.iterdir()] == ["1"]
    files = {str(f.relative_to(exported.path)) for f in exported.path.rglob("*") if f.is_file()}
    assert files == {
        "saved_model.pb", "fingerprint.pb", "variables/variables.index", "variables/variables.data-00000-of-00001",
        "assets/labels.txt", "assets/metadata.json", "assets.extra/tf_serving_warmup_requests",
    }
    assert exported.size == sum((exported.path / file).stat().st_size for file in files)
    # Servers run as other users.
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(exported.path.stat().st_mode) == 0o777 & ~mask
    assert exported.disagreement < 1e-5


def test_assets(exported, model):
    assert (exported.path / "assets" / "labels.txt").read_text().split() == list(model.labels)
    metadata = json.loads((exported.path / "assets" / "metadata.json").read_text())
    assert kp.Preprocessing(**metadata["preprocessing"]) == model.preprocessing
    assert metadata["labels"] == list(model.labels)
    assert len(tf.saved_model.load(str(exported.path)).assets) == 2


def test_it_loads_with_tensorflow_alone(exported, model, tmp_path):
    np.save(tmp_path / "images.npy", np.stack([np.asarray(Image.open(file)) for file in FILES]))
    run_python(
        "import sys; sys.modules['keras'] = sys.modules['keras_preact'] = None\n"
        "import numpy as np, tensorflow as tf\n"
        "loaded = tf.saved_model.load(sys.argv[1])\n"
        "outputs = loaded.signatures['serving_default'](images=tf.constant(np.load('images.npy')))\n"
        "outputs['top_labels'] = outputs['top_labels'].numpy().astype(str)\n"
        "np.savez('outputs.npz', **outputs)",
        exported.path, cwd=tmp_path,
    )
    outputs = np.load(tmp_path / "outputs.npz")
    expected = by_pillow(model, [file.read_bytes() for file in FILES])
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    best = np.argsort(-expected, 1)[:, :5]
    np.testing.assert_array_equal(outputs["top_classes"], best)
    np.testing.assert_array_equal(outputs["top_labels"], np.array(model.labels)[best])
    np.testing.assert_allclose(outputs["top_probabilities"], np.take_along_axis(expected, best, 1), atol=1e-5)
    assert outputs["top_labels"][:, 0].tolist().count("cat") == 2


@pytest.mark.parametrize("format, options, tolerance", [
    ("PNG", {}, 1e-5), ("BMP", {}, 1e-5), ("GIF", {}, 1e-5), ("WEBP", {}, 1e-5), ("JPEG", {"quality": 80}, 1e-5),
    ("JPEG", {"progressive": True}, 1e-5),
])
def test_formats_are_decoded_as_pillow_does(format, options, tolerance, signatures, model):
    files = [encoded(Image.open(file), format, **options) for file in FILES[:4]]
    outputs = signatures["serving_bytes"](files)
    assert outputs["valid"].all() and outputs["probabilities"].dtype == "float32"
    np.testing.assert_allclose(outputs["probabilities"], by_pillow(model, files), atol=tolerance)


def test_grey_and_transparent_images_palettes_and_animations(signatures, model):
    files = [encoded(Image.open(FILES[0]).convert(mode), "PNG") for mode in ("L", "RGBA", "P", "1", "LA")]
    transparent, coloured = Image.open(FILES[1]).convert("RGBA"), Image.open(FILES[2])
    transparent.putalpha(77)
    files += [
        encoded(transparent, "WEBP", lossless=True, exact=True),
        encoded(coloured, "GIF", save_all=True, append_images=[coloured.rotate(180)]),
        encoded(coloured.quantize(100), "BMP"), encoded(coloured.convert("L"), "BMP"),
    ]
    outputs = signatures["serving_bytes"](files)
    assert outputs["valid"].all()
    np.testing.assert_allclose(outputs["probabilities"], by_pillow(model, files), atol=1e-5)


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_photographs_are_turned_upright(byte_order, signatures, model):
    ship, files = Image.open(FILES[-2]).resize((64, 48), Image.Resampling.BICUBIC), []
    for orientation in range(10):
        exif = Image.Exif()
        exif.endian = byte_order
        exif[0x010E], exif[0x0112], exif[0x0131] = "a ship", orientation, "camera"
        files.append(encoded(ship, "JPEG", exif=exif, quality=95))
    damaged = files[6].replace(b"\x12\x01" if byte_order == "<" else b"\x01\x12", b"\xff\xff", 1)
    outputs = signatures["serving_bytes"]([*files, damaged])
    assert outputs["valid"].all()
    expected = by_pillow(model, files)
    np.testing.assert_allclose(outputs["probabilities"][:-1], expected, atol=1e-3)
    assert np.abs(expected[2:9] - expected[1]).max(1).min() > 0.01
    np.testing.assert_array_equal(outputs["probabilities"][-1], outputs["probabilities"][1])


def test_images_of_all_sizes_in_one_batch_stay_in_order(signatures, model):
    rng = np.random.default_rng(0)
    files = []
    for file in FILES * 5:
        width, height = rng.integers(20, 300, 2)
        files.append(encoded(Image.open(file).resize((int(width), int(height)), Image.Resampling.BICUBIC)))
    found, expected = signatures["serving_bytes"](files)["probabilities"], by_pillow(model, files)
    # A few resized pixels differ by one, of 255.
    assert np.abs(found - expected).max() < 0.05 and np.abs(found - expected).mean() < 1e-3


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("size, crop", [((32, 32), 1.0), ((24, 40), 0.875), ((224, 224), 224 / 256)])
@pytest.mark.parametrize("shape", [(300, 200), (33, 500), (64, 64), (32, 32), (7, 9)])
def test_resizing_and_cropping_are_those_of_pillow(interpolation, size, crop, shape):
    preprocessing = kp.Preprocessing(HALF.mean, HALF.std, size, crop, interpolation)
    photo = PHOTO.crop((10, 20, 10 + shape[1], 20 + shape[0]))
    expected = kp.load_image(io.BytesIO(encoded(photo)), preprocessing).astype(int)
    found = savedmodel._fit(tf.constant(np.asarray(photo)[None]), preprocessing).numpy()[0].astype(int)
    if interpolation == "nearest":  # where two pixels are equally near either may be taken
        assert (found == expected).mean() > 0.85
    else:  # where a value lies between two integers it may be rounded to either, once along each side
        assert np.abs(found - expected).max() <= 2 and np.abs(found - expected).mean() < 0.1


def test_a_very_long_image_takes_little_memory():
    pixels = np.zeros((1, 1, 200_000, 3), "uint8")
    pixels[:, :, 99_990:100_010] = 200
    preprocessing = kp.Preprocessing(HALF.mean, HALF.std, (224, 224))
    # Resized as a whole it would be 224 x 44,800,000 pixels.
    assert (savedmodel._fit(tf.constant(pixels), preprocessing).numpy() == 200).all()


def test_a_corrupt_image_is_marked_and_does_not_touch_its_neighbours(signatures):
    files = [file.read_bytes() for file in FILES[:3]]
    jpeg = encoded(Image.open(FILES[3]).resize((90, 90)), "JPEG")
    corrupt = [b"", b"no image", files[0][:200], files[0][:-20], jpeg[:len(jpeg) // 2], b"\xff\xd8\xff" + bytes(99)]
    # TensorFlow cannot decode an animated WebP.
    corrupt.append(encoded(Image.open(FILES[3]), "WEBP", save_all=True, append_images=[Image.open(FILES[4])]))
    whole = signatures["serving_bytes"]([files[0], *files[1:2] * len(corrupt), files[2]])
    mixed = signatures["serving_bytes"]([files[0], *corrupt, files[2]])
    assert mixed["valid"].tolist() == [True, *[False] * len(corrupt), True]
    for name, values in mixed.items():
        np.testing.assert_array_equal(values[[0, -1]], whole[name][[0, -1]])
    blank = {name: values[1:-1] for name, values in mixed.items()}
    assert not blank["probabilities"].any() and not blank["top_probabilities"].any()
    assert (blank["top_classes"] == -1).all() and (blank["top_labels"] == b"").all()
    assert not signatures["serving_bytes"](corrupt)["valid"].any()


def test_features_are_what_the_classifier_takes(signatures, model):
    images = np.stack([np.asarray(Image.open(file)) for file in FILES])
    features = signatures["features"](images)["features"]
    kernel, bias = model.get_layer("predictions").get_weights()
    logits = np.exp(features @ kernel + bias)
    expected = by_pillow(model, [file.read_bytes() for file in FILES])
    np.testing.assert_allclose(logits / logits.sum(1, keepdims=True), expected, atol=1e-5)


def by_hand(kernel, bias, activation=None):
    """A network of 2x2 images that sees 1, 0 and 2 in a pixel of (255, 102, 51)."""
    inputs = keras.Input((2, 2, 3))
    dense = keras.layers.Dense(len(bias), activation=activation)
    model = keras.Model(inputs, dense(keras.layers.GlobalAveragePooling2D()(inputs)), name="hand")
    model.set_weights([np.float32(kernel), np.float32(bias)])
    # (255/255 - 0.5) / 0.5 = 1, (102/255 - 0.4) / 0.2 = 0, (51/255 - 0) / 0.1 = 2.
    model.preprocessing = kp.Preprocessing((0.5, 0.4, 0.0), (0.5, 0.2, 0.1), (2, 2))
    return model


def probabilities_by_hand(path):
    images = tf.constant(np.broadcast_to(np.uint8([255, 102, 51]), (1, 5, 4, 3)))
    outputs = tf.saved_model.load(str(path)).signatures["serving_default"](images=images)
    return outputs["probabilities"].numpy()[0].tolist(), outputs["top_labels"].numpy().tolist()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("kernel, bias, own, given, expected", [
    # Logits 1 + 0 + 8 and 0.5.
    ([[1, 0], [2, 0], [4, 0]], [0, 0.5], None, "softmax", [sigmoid(8.5), sigmoid(-8.5)]),
    ([[1, 0], [2, 0], [4, 0]], [-8, 0.5], None, "sigmoid", [sigmoid(1), sigmoid(0.5)]),
    ([[1, 0], [2, 0], [4, 0]], [-8, 0.5], "sigmoid", None, [sigmoid(1), sigmoid(0.5)]),
    ([[1, 0], [2, 0], [4, 0]], [-8, 0.5], "softmax", "softmax", [sigmoid(0.5), sigmoid(-0.5)]),
    ([[-1], [2], [1]], [0], None, "sigmoid", [sigmoid(1)]),
    ([[-1], [2], [1]], [-3], "sigmoid", None, [sigmoid(-2)]),
])
def test_networks_computed_by_hand(kernel, bias, own, given, expected, tmp_path):
    model = by_hand(kernel, bias, own)
    labels = ["x", "y"][:len(bias)]
    path = export_savedmodel(model, tmp_path / "hand", signatures=PIXELS, labels=labels, top=1, activation=given).path
    found, top = probabilities_by_hand(path)
    assert found == pytest.approx(expected) and top == [[b"x"]]


@pytest.mark.parametrize("classes, own, given, message", [
    (1, None, None, "hand does not say what its 1 outputs mean.*activation='softmax' if they.*'sigmoid' if they"),
    (2, None, None, "hand does not say what its 2 outputs mean"),
    (1, None, "softmax", "one output, of which a softmax is always 1: give activation='sigmoid' if"),
    (1, "softmax", None, "one output, of which a softmax is always 1"),
    (2, "softmax", "sigmoid", "softmax or sigmoid, of which .* Received: activation='sigmoid'.*ends with 'softmax'"),
    (2, "relu", None, "must end with logits, or with a softmax or sigmoid.*Received: .*ends with 'relu'"),
    (2, "relu", "softmax", "must end with logits.*ends with 'relu'"),
    (2, None, "tanh", "`activation` must be one of 'softmax', 'sigmoid'. Received: 'tanh'"),
])
def test_outputs_whose_meaning_is_not_known_are_refused(classes, own, given, message, tmp_path):
    model = by_hand(np.ones((3, classes)), np.ones(classes), own)
    with pytest.raises(ValueError, match=message):
        export_savedmodel(model, tmp_path / "hand", labels=["x", "y"][:classes], activation=given)
    assert list(tmp_path.iterdir()) == []


def test_models_without_a_graph_are_refused(tmp_path):
    class Own(keras.Model):
        def call(self, x):
            return x

    for model in (Own(), keras.Sequential([keras.layers.Dense(2)], name="own")):
        model.preprocessing = HALF
        with pytest.raises(ValueError, match=r"own\w* must be a functional model, or a Sequential"):
            export_savedmodel(model, tmp_path / "own", labels=["x", "y"])


@pytest.mark.parametrize("end", [
    keras.layers.Softmax(), keras.layers.Activation("softmax"), keras.ops.softmax,
    lambda x: keras.layers.Activation("linear")(keras.layers.Dropout(0.5)(keras.layers.Activation("softmax")(x))),
])
def test_activations_that_are_layers_of_their_own_are_seen(end, tmp_path):
    model = by_hand([[1, 0], [2, 0], [4, 0]], [-8, 0.5])
    whole = keras.Model(model.input, end(model.output))
    known = {"preprocessing": model.preprocessing, "labels": ["x", "y"]}
    path = export_savedmodel(whole, tmp_path / "hand", signatures=PIXELS, **known).path
    assert probabilities_by_hand(path)[0] == pytest.approx([sigmoid(0.5), sigmoid(-0.5)])


def test_what_is_exported_is_compared_with_the_model_that_was_given(tmp_path, monkeypatch):
    right = preparation._probabilities
    monkeypatch.setattr(preparation, "_probabilities", lambda outputs, activation: right(outputs, "softmax"))
    model = by_hand([[1, 0], [2, 0], [4, 0]], [-8, 0.5])
    with pytest.raises(ValueError, match=r"differs from the Keras model by 0\.[1-9]"):
        export_savedmodel(model, tmp_path / "hand", signatures=PIXELS, labels=["x", "y"], activation="sigmoid")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", slow("mixed_float16")])
def test_mixed_precision_is_served_as_float32(policy, dtype_policy, tmp_path):
    dtype_policy(policy)
    model = kp.PreActResNet20(weights="cifar10")
    exported = export_savedmodel(model, tmp_path / "mixed")
    served = tf.saved_model.load(str(exported.path)).signatures
    assert served["features"](images=tf.zeros((1, 32, 32, 3), "uint8"))["features"].dtype == "float32"
    outputs = served["serving_bytes"](image_bytes=tf.constant([file.read_bytes() for file in FILES]))
    assert {v.dtype.name for v in outputs.values()} == {"float32", "int32", "string", "bool"}
    expected = by_pillow(model, [file.read_bytes() for file in FILES])
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=preparation.MIXED_TOLERANCE[policy[6:]])


def test_a_batch_of_nothing_gives_nothing(exported):
    served = tf.saved_model.load(str(exported.path)).signatures
    files = served["serving_bytes"](image_bytes=tf.constant([], "string"))
    assert {name: value.shape for name, value in files.items()} == {
        "probabilities": (0, 10), "valid": (0,),
        "top_classes": (0, 5), "top_labels": (0, 5), "top_probabilities": (0, 5),
    }
    for shape in ((0, 32, 32, 3), (0, 50, 70, 3)):
        images = tf.zeros(shape, "uint8")
        assert served["serving_default"](images=images)["probabilities"].shape == (0, 10)
        assert served["features"](images=images)["features"].shape == (0, 64)


@pytest.mark.slow
def test_channels_first(channels_first, tmp_path):
    model = kp.PreActResNet20(weights="cifar10")
    assert model.input_shape == (None, 3, 32, 32)
    exported = export_savedmodel(model, tmp_path / "first")
    served = tf.saved_model.load(str(exported.path)).signatures["serving_bytes"]
    outputs = served(image_bytes=tf.constant([file.read_bytes() for file in FILES]))
    labels = [label.decode() for label in outputs["top_labels"].numpy()[:, 0]]
    assert labels == [file.name.split("_")[0] for file in FILES]


@pytest.mark.slow
def test_fine_tuned_networks(tmp_path):
    base = kp.PreActResNet20(weights="cifar10", include_top=False, pooling="avg")
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Dense(8, activation="relu")(keras.layers.Dropout(0.5)(base(inputs)))
    nested = keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(x))
    sequential = keras.Sequential([keras.Input((32, 32, 3)), base, keras.layers.Dense(5, activation="softmax")])
    preprocessing = kp.list_weights("PreActResNet20")[0].preprocessing
    files = [file.read_bytes() for file in FILES]
    for model in (nested, sequential):
        exported = export_savedmodel(model, tmp_path / "tuned", preprocessing=preprocessing, labels=LABELS)
        served = tf.saved_model.load(str(exported.path)).signatures["serving_bytes"](image_bytes=tf.constant(files))
        expected = by_pillow(model, files, preprocessing)
        np.testing.assert_allclose(served["probabilities"], expected, atol=1e-5)


def test_a_network_without_a_classifier_serves_features(tmp_path):
    headless = ResNet(tiny(), include_top=False, input_shape=(None, None, 3))
    randomize(headless, 0)
    exported = export_savedmodel(headless, tmp_path / "features", signatures=("features",), preprocessing=HALF)
    served = tf.saved_model.load(str(exported.path)).signatures
    assert list(served) == ["features"]
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3)).astype("uint8")
    expected = headless.predict_on_batch(kp.preprocess_input(image, HALF)).mean((1, 2))
    found = served["features"](images=tf.constant(image))["features"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [
    NetworkConfig.cifar(164, "bottleneck"), NetworkConfig.cifar(164, "bottleneck", order="original"),
], ids=lambda config: config.order)
@pytest.mark.slow
def test_164_layers_at_the_default_recursion_limit(config, tmp_path):
    code = (
        "import sys, keras_preact as kp, helpers\n"
        "from keras_preact.networks.building import ResNet; from keras_preact.networks.config import NetworkConfig\n"
        "assert sys.getrecursionlimit() == 1000\n"
        "model = ResNet(NetworkConfig.cifar(164, 'bottleneck', order=sys.argv[1]))\n"
        "preprocessing = kp.list_weights('PreActResNet20')[0].preprocessing\n"
        "labels = list(map(str, range(10)))\n"
        "print(kp.export_savedmodel(model, 'models/deep', preprocessing=preprocessing, labels=labels).disagreement)"
    )
    assert float(run_python(code, config.order, cwd=tmp_path)) < 1e-5
    assert (tmp_path / "models" / "deep" / "1" / "saved_model.pb").exists()


def test_warm_up_requests_are_those_of_every_signature(exported):
    pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api has the protos")
    servable = serving_rules.Servable(exported.path.parent)  # replays them, as TF Serving does
    assert [signature for signature, _ in servable.warmed_up] == list(savedmodel.SIGNATURES)


def test_versions(tmp_path):
    base, model = tmp_path / "models" / "tiny", tiny_model()
    (base / "notes").mkdir(parents=True)

    def export(**arguments):
        known = {"signatures": PIXELS, "preprocessing": HALF, "labels": LABELS}
        return export_savedmodel(model, base, **known, **arguments).path.name

    assert [export(), export(), export(version=7), export()] == ["1", "2", "7", "8"]
    before = (base / "7" / "saved_model.pb").stat().st_ino
    with pytest.raises(ValueError, match="7 exists already: give another path or version, or overwrite=True"):
        export(version=7)
    assert (base / "7" / "saved_model.pb").stat().st_ino == before
    export(version=7, overwrite=True)
    assert (base / "7" / "saved_model.pb").stat().st_ino != before
    assert {child.name for child in base.iterdir()} == {"1", "2", "7", "8", "notes"}


def test_a_model_that_computes_something_else_is_not_left_behind(tmp_path, monkeypatch):
    right = savedmodel.normalize
    monkeypatch.setattr(savedmodel, "normalize", lambda *arguments: right(*arguments) + 1e-3)
    with pytest.raises(ValueError, match=r"differs from the Keras model by .*, and 1e-05 is allowed; nothing was"):
        export_savedmodel(
            tiny_model(), tmp_path / "models" / "tiny", signatures=PIXELS, preprocessing=HALF, labels=LABELS
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_export_that_another_one_overtakes_takes_the_next_number(overwrite, tmp_path, monkeypatch):
    base, write = tmp_path / "tiny", savedmodel._write_warmup
    known = {"signatures": PIXELS, "preprocessing": HALF, "labels": LABELS}

    def overtaken(*arguments):
        monkeypatch.setattr(savedmodel, "_write_warmup", write)
        assert export_savedmodel(tiny_model(), base, **known).path == base / "1"
        return write(*arguments)

    monkeypatch.setattr(savedmodel, "_write_warmup", overtaken)
    exported = export_savedmodel(tiny_model(), base, overwrite=overwrite, **known)
    assert exported.path == base / "2" and tf.saved_model.load(str(exported.path)).signatures
    assert {child.name for child in base.iterdir()} == {"1", "2"}

    monkeypatch.setattr(savedmodel, "_target", lambda *_: base / "2")  # one that another has taken meanwhile
    before = (base / "2" / "saved_model.pb").stat().st_ino
    with pytest.raises(OSError):
        export_savedmodel(tiny_model(), base, version=2, **known)
    assert (base / "2" / "saved_model.pb").stat().st_ino == before


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("no room")

    monkeypatch.setattr(savedmodel, "_write_warmup", fail)
    with pytest.raises(OSError, match="no room"):
        export_savedmodel(tiny_model(), tmp_path / "models" / "tiny", preprocessing=HALF, labels=LABELS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change, message", [
    ({"signatures": ("serving_default", "predict")}, "`signatures` must be one of 'serving_default', 'serving_bytes'"),
    ({"version": 0}, "`version` must be a positive integer. Received: 0"),
    ({"version": "1"}, "`version` must be a positive integer. Received: '1'"),
    ({"top": 0}, "`top` must be a positive integer. Received: 0"),
    ({"labels": None}, "does not name its classes: give `labels`, a name for each of the 5"),
    ({"labels": ["a", "b"]}, r"`labels` must be a text for each of the 5 classes. Received: \['a', 'b'\]"),
    ({"labels": "abcde"}, "`labels` must be a text for each of the 5 classes. Received: 'abcde'"),
    ({"preprocessing": None}, "give `preprocessing`, a .*, or set model.preprocessing. Received: None"),
    ({"preprocessing": kp.Preprocessing((0,), (1,), (16, 16))}, r"shape \(16, 16, 3\), and `preprocessing` gives 16x16 "
     "pixels of 1 channels"),
    ({"preprocessing": kp.Preprocessing(HALF.mean, HALF.std, (32, 32))}, "gives 32x32 pixels of 3 channels. Build it"),
])
def test_what_cannot_be_exported_says_why_and_leaves_nothing(change, message, tmp_path):
    arguments = {"preprocessing": HALF, "labels": LABELS} | change
    with pytest.raises(ValueError, match=message):
        export_savedmodel(tiny_model(), tmp_path / "models" / "tiny", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_networks_that_cannot_be_exported(tmp_path):
    path, known = tmp_path / "tiny", {"preprocessing": HALF, "labels": LABELS}
    with pytest.raises(ValueError, match=r"without a classifier.*signatures=\('features',\)"):
        export_savedmodel(ResNet(tiny(), include_top=False), path, **known)
    small = kp.Preprocessing(HALF.mean, HALF.std, (3, 16))
    with pytest.raises(ValueError, match="has 1/4 of the height.* must be at least 4 pixels. Received: 3x16"):
        export_savedmodel(ResNet(tiny(), input_shape=(None, None, 3), classes=5), path, preprocessing=small,
                          labels=LABELS)
    diverged = tiny_model()
    diverged.set_weights([np.full_like(value, np.nan) for value in diverged.get_weights()])
    with pytest.raises(ValueError, match="gives values that are not finite: train it"):
        export_savedmodel(diverged, path, **known)
    inputs = keras.Input((16, 16, 3))
    with pytest.raises(ValueError, match="one input and one output. Received: 1 and 2"):
        export_savedmodel(keras.Model(inputs, [inputs, inputs]), path, **known)
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(ValueError, match="must be in a folder that can be written to"):
        export_savedmodel(tiny_model(), tmp_path / "tiny", preprocessing=HALF, labels=LABELS)


def test_a_path_that_is_or_is_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    for path, message in (("file", "must be a folder of versions, and .* is a file"),
                          ("file/tiny", "must be in a folder that can be written to. Received: .*Not a directory")):
        with pytest.raises(ValueError, match=message):
            export_savedmodel(tiny_model(), tmp_path / path, preprocessing=HALF, labels=LABELS)


def test_a_model_in_the_folder_of_now_is_warmed_up_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = build(tiny(), (16, 16, 3))
    model.preprocessing, model.labels = HALF, LABELS
    kp.export_savedmodel(model, ".", signatures=("serving_default",), activation="softmax")
    assert tmp_path.name.encode() in (tmp_path / "1" / "assets.extra" / "tf_serving_warmup_requests").read_bytes()
