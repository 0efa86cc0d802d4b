"""From images to input and from output to labels, against values computed by hand."""
import io

import keras
import numpy as np
import pytest
from PIL import Image

import keras_preact as kp
from keras_preact.data.preprocessing import LABELS, load_image, normalize

HALF = kp.Preprocessing(mean=(0.5, 0.4, 0.0), std=(0.5, 0.2, 0.1), size=(4, 4))
# (255/255 - 0.5) / 0.5, (102/255 - 0.4) / 0.2, (51/255 - 0) / 0.1
PIXEL, NORMALIZED = [255, 102, 51], [1.0, 0.0, 2.0]


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(np.uint8(pixels)).save(file, "PNG")
    file.seek(0)
    return file


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64"])
def test_normalize_by_hand_and_without_changing_the_argument(dtype):
    x = np.full((2, 3, 5, 3), PIXEL, dtype)
    before = x.copy()
    y = normalize(x, HALF)
    assert y.dtype == "float32"
    np.testing.assert_allclose(y, np.broadcast_to(NORMALIZED, x.shape), atol=1e-6)
    np.testing.assert_array_equal(x, before)


def test_normalize_channels_first_and_single_images():
    x = np.broadcast_to(np.uint8(PIXEL)[:, None, None], (3, 4, 6))
    np.testing.assert_allclose(normalize(x, HALF, "channels_first")[:, 1, 1], NORMALIZED, atol=1e-6)


def test_normalize_backend_tensors():
    x = keras.ops.convert_to_tensor(np.full((1, 2, 2, 3), PIXEL, "uint8"))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(normalize(x, HALF))[0, 0, 0], NORMALIZED, atol=1e-6)


@pytest.mark.parametrize("x", [np.linspace(-1, 1, 12), np.linspace(0, 1, 12)])
def test_normalizing_twice_or_scaled_values_warns(x):
    with pytest.warns(UserWarning, match="from 0 to 255 are expected, and these lie between"):
        kp.preprocess_input(np.float32(x).reshape(2, 2, 3), "cifar10")


@pytest.mark.parametrize("x", [np.full(12, 1023.0), np.full(12, np.nan)], ids=["of 10 bits", "no numbers"])
def test_floats_that_no_8_bits_gave_warn(x):
    with pytest.warns(UserWarning, match=f"these lie between {x[0]:.4g} and {x[0]:.4g}: .* or of more than 8 bits"):
        normalize(x.reshape(2, 2, 3), HALF)


def test_values_that_resizing_made_do_not_warn():
    normalize(np.float32([0, 1.5, 290]).reshape(1, 1, 3), HALF)


@pytest.mark.parametrize("x, told", [
    (np.full((2, 2, 3), 257, "uint16"), "of 16 bits.* x / 257.* Received: uint16"),
    (keras.ops.convert_to_tensor(np.full((2, 2, 3), 257, "uint16")), "of 16 bits.* Received: .*uint16"),
    (np.full((2, 2, 3), 60000), "between 0 and 255. Received: int64 from 60000 to 60000"),
    (np.full((2, 2, 3), -1, "int8"), "between 0 and 255. Received: int8 from -1 to -1"),
    (np.full((2, 2, 3), True), "integers or floats from 0 to 255.* Received: bool"),
    (np.full((2, 2, 3), 1j), "integers or floats from 0 to 255.* Received: complex128"),
    (np.full((2, 2, 3), "7"), "integers or floats from 0 to 255.* Received: str32"),
    (np.full((2, 2, 3), 7, object), "integers or floats from 0 to 255.* Received: object"),
    (Image.new("RGB", (2, 2)), r"load_image\(file, model\) reads a file.*convert\('RGB'\).* Received: Image"),
    ([np.zeros((2, 2, 3), "uint8")], r"np.stack\(images\) of a list of arrays. Received: list"),
    ("cat.png", r"load_image\(file, model\) reads a file.* Received: str"),
    (None, "Images must be an array or a tensor.* Received: NoneType"),
], ids=lambda value: type(value).__name__)
def test_what_holds_no_pixels_of_8_bits_is_refused(x, told):
    with pytest.raises(ValueError, match=f"(?i){told}"):
        kp.preprocess_input(x, HALF)


def test_half_precision_is_a_float():
    brain = keras.ops.cast(np.full((1, 1, 3), PIXEL, "float32"), "bfloat16")
    for x in brain, keras.ops.convert_to_numpy(brain), np.float16(PIXEL).reshape(1, 1, 3):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(normalize(x, HALF))[0, 0], NORMALIZED, atol=1e-6)


def test_images_whose_number_of_axes_is_not_known_yet():
    """As tf.io.decode_image gives them inside a data set."""
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensors(png(np.full((2, 4, 3), PIXEL)).read())
    (x,) = data.map(lambda content: kp.preprocess_input(tf.io.decode_image(content), HALF))
    np.testing.assert_allclose(x, np.broadcast_to(NORMALIZED, (2, 4, 3)), atol=1e-6)


def test_black_images_do_not_warn():
    kp.preprocess_input(np.zeros((1, 2, 2, 3), "float32"), "cifar10")


def test_wrong_channels_are_refused():
    with pytest.raises(ValueError, match=r"3 channels on axis -1 .*\(2, 8, 8, 1\)"):
        normalize(np.zeros((2, 8, 8, 1), "uint8"), HALF)
    with pytest.raises(ValueError, match=r"3 channels on axis -3 .*\(2, 8, 8, 3\)"):
        normalize(np.zeros((2, 8, 8, 3), "uint8"), HALF, "channels_first")


def test_a_tag_stands_for_what_its_weights_were_trained_with():
    x = np.full((1, 1, 1, 3), 128, "uint8")
    expected = (128 / 255 - np.array([0.4914, 0.4822, 0.4465])) / [0.2470, 0.2435, 0.2616]
    np.testing.assert_allclose(kp.preprocess_input(x, "cifar10")[0, 0, 0], expected, atol=1e-6)
    np.testing.assert_allclose(kp.preprocess_input(x, HALF), normalize(x, HALF))
    with pytest.raises(ValueError, match="tag of the index: 'cifar10'.* Received: 'cifar'"):
        kp.preprocess_input(x, weights="cifar")
    with pytest.raises(ValueError, match="'imagenet' of PreActResNet50 expect comes with their file.*`model.preproc"):
        kp.preprocess_input(x, weights="imagenet", model="PreActResNet50")
    with pytest.raises(ValueError, match="of other weights take `model.preprocessing` and `model.labels`"):
        kp.preprocess_input(x, weights="imagenet")


def test_a_model_knows_its_preprocessing_and_labels():
    model = keras.Sequential(name="own")
    model.preprocessing, model.labels = HALF, ("cat", "dog")
    x = np.full((1, 2, 2, 3), PIXEL, "uint8")
    np.testing.assert_allclose(kp.preprocess_input(x, model)[0, 0, 0], NORMALIZED, atol=1e-6)
    assert kp.decode_predictions(np.array([[0.25, 0.75]]), 1, model) == [[("dog", 0.75)]]
    file = io.BytesIO()
    Image.new("RGB", (40, 40)).save(file, "PNG")
    assert kp.load_image(file, model).shape == (*HALF.size, 3)
    for unknown in (keras.Sequential(name="own"), (0.5, 0.5)):
        with pytest.raises(ValueError, match="a Preprocessing, or a model that knows its own.*set model.preprocessing"):
            kp.preprocess_input(x, unknown)


def test_without_weights_images_of_another_size_than_cifar10s_are_noticed():
    with pytest.warns(UserWarning, match=r"shape \(1, 8, 32, 3\), are normalized as CIFAR-10's of 32x32.*give the m"):
        kp.preprocess_input(np.full((1, 8, 32, 3), 128, "uint8"))
    expected = (128 / 255 - 0.4914) / 0.2470
    for given in ((), ("cifar10",)):
        x = kp.preprocess_input(np.full((1, 32, 32, 3) if not given else (1, 8, 8, 3), 128, "uint8"), *given)
        assert x[0, 0, 0, 0] == pytest.approx(expected, abs=1e-6)
    with pytest.warns(UserWarning, match="of 64x32 pixels, is resized as CIFAR-10's of 32x32.*give the m") as warned:
        assert kp.load_image(png(np.full((32, 64, 3), 7))).shape == (32, 32, 3)
    assert warned[0].filename == __file__
    assert kp.load_image(png(np.full((32, 32, 3), 7))).max() == 7  # without a warning, as here:
    assert kp.load_image(png(np.full((32, 64, 3), 7)), "cifar10").max() == 7


def test_the_layer_by_hand():
    """(51 / 255 - 0.1) / 0.5 is 0.2, (255 / 255 - 0.2) / 0.4 is 2, and (0 - 0.3) / 0.3 is -1."""
    layer = kp.preprocessing_layer(kp.Preprocessing((0.1, 0.2, 0.3), (0.5, 0.4, 0.3), (1, 1)))
    pixel = np.array([51, 255, 0], "uint8")
    found = keras.ops.convert_to_numpy(layer(pixel.reshape(1, 1, 1, 3)))
    np.testing.assert_allclose(found, [[[[0.2, 2, -1]]]], atol=1e-6)
    with pytest.raises(ValueError, match="must be a tag, a Preprocessing, or a model that knows its own"):
        kp.preprocessing_layer(kp.PreActResNet20())


def test_the_layer_of_channels_first_by_hand(channels_first):
    layer = kp.preprocessing_layer(kp.Preprocessing((0.1, 0.2, 0.3), (0.5, 0.4, 0.3), (1, 2)))
    pixels = np.array([[51, 0], [255, 0], [0, 0]], "uint8").reshape(1, 3, 1, 2)
    found = keras.ops.convert_to_numpy(layer(pixels))
    np.testing.assert_allclose(found.reshape(3, 2), [[0.2, -0.2], [2, -0.5], [-1, -1]], atol=1e-6)


def test_a_model_with_the_layer_inside_takes_pixels_and_opens_with_keras_alone(tmp_path, samples):
    images, _ = samples["cifar10"]
    model = kp.PreActResNet20(weights="cifar10")
    expected = keras.ops.convert_to_numpy(model(kp.preprocess_input(images[:8], model), training=False))
    keras.Sequential([keras.Input((32, 32, 3)), kp.preprocessing_layer(model), model]).save(tmp_path / "a.keras")
    found = keras.models.load_model(tmp_path / "a.keras").predict_on_batch(images[:8])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_decode_predictions():
    predictions = np.array([[0.1, 0.7, 0.2], [0.3, 0.3, 0.4]])
    assert kp.decode_predictions(predictions, top=2, weights=["a", "b", "c"]) == [
        [("b", 0.7), ("c", 0.2)], [("c", 0.4), ("a", 0.3)],
    ]
    assert len(kp.decode_predictions(np.eye(10), top=20)[0]) == 10
    assert kp.decode_predictions(np.eye(10), top=1)[9] == [("truck", 1.0)]
    with pytest.raises(ValueError, match=r"\(batch, 10\).* Received shape: \(2, 3\)"):
        kp.decode_predictions(predictions)
    with pytest.raises(ValueError, match="a new head has no labels: give `weights` a list"):
        kp.decode_predictions(np.eye(3), weights=None)


def test_predictions_of_any_type_of_numbers():
    """An integer network gives uint8, of which 255 is the most and whose negatives wrap around."""
    assert kp.decode_predictions(np.uint8([[0, 255, 1]]), 3, list("abc")) == [[("b", 255), ("c", 1), ("a", 0)]]
    assert kp.decode_predictions(np.array([[False, True]]), 1, list("ab")) == [[("b", 1)]]


@pytest.mark.parametrize("predictions, top, labels, told", [
    (np.eye(2), 0, ["a", "b"], "`top` must be a positive integer. Received: 0"),
    (np.eye(2), 1.5, ["a", "b"], "`top` must be a positive integer. Received: 1.5"),
    (np.eye(2), 1, {"a": 0, "b": 1}, "a list with one for each class, in their order. Received: {'a': 0"),
    (np.eye(2), 1, {"a"}, "a list with one for each class, in their order. Received: {'a'}"),
    (np.eye(2), 1, 2, "a list with one for each class, in their order. Received: 2"),
    (np.full((1, 2), np.nan), 1, ["a", "b"], "`predictions` must be numbers. Received: NaN"),
])
def test_what_cannot_be_decoded(predictions, top, labels, told):
    with pytest.raises(ValueError, match=told):
        kp.decode_predictions(predictions, top, labels)


def test_label_sets():
    assert LABELS["cifar10"][3] == "cat" and len(LABELS["cifar10"]) == 10
    assert LABELS["cifar100"][0] == "apple" and LABELS["cifar100"][99] == "worm" and len(LABELS["cifar100"]) == 100


def test_an_image_of_the_right_size_is_left_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3))
    np.testing.assert_array_equal(load_image(png(pixels), HALF), pixels)


def test_a_wide_image_is_resized_by_its_shorter_side_and_cropped_at_its_centre():
    # Columns 0..15 as they are, 8 rows: half the size is 4 x 8, of which columns 2 to 5 stay, the means of pairs.
    pixels = np.broadcast_to(np.arange(16)[None, :, None] * 16, (8, 16, 3))
    box = kp.Preprocessing(HALF.mean, HALF.std, (4, 4), interpolation="nearest")
    np.testing.assert_array_equal(load_image(png(pixels), box)[0, :, 0] // 32, [2, 3, 4, 5])


def test_the_crop_fraction_enlarges_what_is_cropped():
    pixels = np.broadcast_to(np.arange(8)[None, :, None] * 30, (8, 8, 3))
    half = kp.Preprocessing(HALF.mean, HALF.std, (4, 4), crop=0.5)
    np.testing.assert_array_equal(load_image(png(pixels), half)[0, :, 0], [60, 90, 120, 150])


def test_grey_and_transparent_images_become_rgb():
    assert load_image(png(np.full((4, 4), 7)), HALF).tolist() == np.full((4, 4, 3), 7).tolist()
    assert load_image(png(np.full((4, 4, 4), 7)), HALF).shape == (4, 4, 3)


def test_of_one_channel_images_are_grey():
    one = kp.Preprocessing((0.5,), (0.5,), (2, 4), crop=0.5)
    found = load_image(png(np.full((8, 8, 3), PIXEL)), one)
    # ITU-R 601-2: 0.299 * 255 + 0.587 * 102 + 0.114 * 51
    assert found.shape == (2, 4, 1) and found.dtype == "uint8" and (found == 142).all()


@pytest.mark.parametrize("file, told", [
    (None, "Received: NoneType"), (5, "Received: int"), (b"content", r"io.BytesIO\(content\).* Received: bytes"),
    (np.zeros((4, 4, 3), "uint8"), "Received: ndarray"), (["a.png"], "Received: list"),
    ("gs://bucket/a.png", "on this machine.* Received: gs://bucket/a.png"), ("", "be empty"),
], ids=str)
def test_what_is_no_file_is_refused(file, told):
    with pytest.raises(ValueError, match=f"`file` must .*{told}"):
        load_image(file, HALF)


def test_a_path_begins_with_the_home_of_its_user_or_with_a_file_so_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.png").write_bytes(png(np.full((4, 4, 3), 7)).read())
    (tmp_path / "~b.png").write_bytes(png(np.full((4, 4, 3), 9)).read())
    monkeypatch.chdir(tmp_path)
    assert load_image("~/a.png", HALF).max() == 7 and load_image("~b.png", HALF).max() == 9


def test_damaged_exif_data_are_passed_over():
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), 9, "uint8")).save(file, "PNG", exif=b"Exif\0\0no TIFF header")
    assert (load_image(file, HALF) == 9).all()


def test_whatever_pillow_cannot_decode_is_an_oserror(monkeypatch):
    content = png(np.random.default_rng(0).integers(0, 256, (256, 256, 3))).read()
    _, second, *_ = content.split(b"IDAT")
    with pytest.raises(OSError, match="Pillow cannot decode it: broken PNG file"):
        load_image(io.BytesIO(content.replace(second + b"IDAT", second + bytes(4))), HALF)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(OSError, match="Pillow cannot decode it: .*decompression bomb"):
        load_image(io.BytesIO(content), HALF)


def test_images_are_turned_upright():
    pixels = np.zeros((4, 4, 3), "uint8")
    pixels[0] = 255
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 3  # taken upside down
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    assert load_image(file, HALF)[:, 0, 0].tolist() == [0, 0, 0, 255]


@pytest.mark.parametrize("change, pattern", [
    ({"std": (0.5, 0.2)}, "one value for each channel"),
    ({"std": (0.5, 0.2, 0.0)}, "positive"),
    ({"std": (0.5, 0.2, np.inf)}, "positive"),
    ({"mean": (127.5, 127.5, 127.5)}, "from 0 to 1 and not to 255.* Received: mean=\\(127.5"),
    ({"mean": (0.5, 0.5, np.nan)}, "from 0 to 1.* Received: mean=\\(0.5, 0.5, nan"),
    ({"mean": 0.5}, "one value for each channel.* Received: mean=\\(0.5,\\)"),
    ({"mean": "abc"}, "one value for each channel.* Received: mean=\\('abc',\\)"),
    ({"mean": ("a", "b", "c")}, "one value for each channel.* Received: mean=\\('a'"),
    ({"mean": (), "std": ()}, "one value for each channel"),
    ({"size": 4}, "`size` must be \\(height, width\\).* Received: \\(4,\\)"),
    ({"size": (4.0, 4)}, "`size` must be \\(height, width\\).* Received: \\(4.0, 4"),
    ({"crop": 1.5}, "at most 1. Received: 1.5"),
    ({"crop": "1"}, "a number above 0 and at most 1. Received: '1'"),
    ({"crop": None}, "a number above 0 and at most 1. Received: None"),
    ({"interpolation": "area"}, "'bilinear'.*Received: 'area'"),
])
def test_impossible_preprocessing_is_refused(change, pattern):
    with pytest.raises(ValueError, match=pattern):
        kp.Preprocessing(**({"mean": HALF.mean, "std": HALF.std, "size": (4, 4)} | change))
