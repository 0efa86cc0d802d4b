"""Feature pyramids and Grad-CAM, against layers of the network and gradients."""
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import build, images_like, outputs_of, randomize, tiny
from PIL import Image

import keras_preact as kp
from keras_preact.networks import explanation
from keras_preact.networks.building import ResNet
from keras_preact.networks.config import NetworkConfig


def pyramid_of(config, size=33):
    model = ResNet(config, input_shape=(None, None, 3), classes=5)
    randomize(model, 0)
    images = images_like((size, size, 3))
    pyramid = kp.feature_pyramid(model)
    return model, images, {name: keras.ops.convert_to_numpy(value) for name, value in pyramid(images).items()}


def test_strides_of_cifar_and_imagenet_networks():
    _, _, maps = pyramid_of(tiny())
    assert {name: value.shape for name, value in maps.items()} == {
        "stride1": (2, 33, 33, 4), "stride2": (2, 17, 17, 6), "stride4": (2, 9, 9, 8),
    }
    _, _, maps = pyramid_of(tiny(NetworkConfig.imagenet(50)), size=65)
    assert {name: value.shape for name, value in maps.items()} == {
        "stride4": (2, 17, 17, 16), "stride8": (2, 9, 9, 24), "stride16": (2, 5, 5, 32), "stride32": (2, 3, 3, 40),
    }


@pytest.mark.parametrize("order, last, first", [
    ("full_preactivation", "closing_relu", "stage2_unit1_relu1"),
    ("original", "stage3_unit1_out_relu", "stage1_unit1_out_relu"),
    ("bn_after_addition", "stage3_unit1_out_relu", "stage1_unit1_out_relu"),
    ("relu_before_addition", "stage3_unit1_add", "stage1_unit1_add"),
    ("relu_preactivation", "closing_relu", "stage2_unit1_relu1"),
])
def test_maps_are_those_that_the_next_unit_takes(order, last, first):
    model, images, maps = pyramid_of(tiny(order=order))
    for stride, name in (("stride1", first), ("stride4", last)):
        layer = keras.Model(model.input, model.get_layer(name).output)
        np.testing.assert_array_equal(maps[stride], outputs_of(layer, images))


def test_a_stride_on_the_last_unit():
    """keras.applications has the stride on the last unit of a stage, so that its sum is of the next resolution."""
    config = tiny(NetworkConfig.imagenet(50), stride_on="last_unit", first_activation="unit")
    model, images, maps = pyramid_of(config, size=64)
    assert [value.shape[1] for value in maps.values()] == [16, 8, 4, 2]
    layer = keras.Model(model.input, model.get_layer("stage1_unit2_relu1").output)
    np.testing.assert_array_equal(maps["stride4"], outputs_of(layer, images))


def test_pretrained_weights_are_kept():
    model = kp.PreActResNet20(weights="cifar10", include_top=False)
    pyramid = kp.feature_pyramid(model)
    assert all(a is b for a, b in zip(pyramid.weights, model.weights, strict=True))


def nested(base, *head):
    """`base` under `head`, as a Sequential, as a layer of another model, and two models deep."""
    first, second = (keras.Input(base.input_shape[1:]) for _ in range(2))
    stacked = keras.Sequential([keras.Input(base.input_shape[1:]), base, *head])
    one = keras.Model(first, keras.Sequential(head)(base(first, training=False)))
    return {"sequential": stacked, "functional": one, "deep": keras.Model(second, keras.layers.Identity()(one(second)))}


def small_head(activation=None):
    pool, drop = keras.layers.GlobalAveragePooling2D(), keras.layers.Dropout(0.5)
    return pool, drop, keras.layers.Dense(5, activation, name="head")


@pytest.mark.parametrize("kind", ["sequential", "functional", "deep"])
def test_networks_inside_others_have_the_maps_and_the_heat_of_the_network(kind):
    base = ResNet(tiny(), include_top=False, input_shape=(16, 12, 3))
    randomize(base, 0)
    model = nested(base, *small_head("softmax"))[kind]
    images = images_like((16, 12, 3), 3)
    for name, maps in kp.feature_pyramid(base)(images).items():
        np.testing.assert_array_equal(kp.feature_pyramid(model)(images)[name], maps)
    heat, classes = kp.grad_cam(model, images, [1, 0, 4])
    kernel = model.get_weights()[-2] if kind == "sequential" else next(w for w in model.weights if w.shape == (8, 5))
    expected = np.maximum(np.einsum("nhwc,cn->nhw", outputs_of(base, images), np.asarray(kernel)[:, [1, 0, 4]]), 0)
    np.testing.assert_allclose(heat * expected.max((1, 2), keepdims=True), expected, atol=1e-5)


def test_of_two_networks_there_is_no_pyramid():
    base, other = (ResNet(tiny(), include_top=False, input_shape=(16, 16, 3), name=name) for name in ("one", "two"))
    a, b = keras.Input((16, 16, 3)), keras.Input((16, 16, 3))
    for second in (base, other):
        both = keras.Model([a, b], keras.layers.Concatenate()([base(a), second(b)]))
        with pytest.raises(ValueError, match=r"one network that is used once.*give one of them, model.get_layer"):
            kp.feature_pyramid(both)


def test_a_model_without_units_has_no_pyramid():
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match="must have residual units, which end with an Add layer. Received: plain"):
        kp.feature_pyramid(keras.Model(inputs, keras.layers.Conv2D(1, 1)(inputs), name="plain"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="differentiates with TensorFlow")
def test_grad_cam_is_that_of_its_definition():
    import tensorflow as tf

    model = build(tiny(), (16, 12, 3), classes=5)
    images = images_like((16, 12, 3), 3)
    both = keras.Model(model.input, [model.get_layer("closing_relu").output, model.output])
    for classes in ([0, 4, 2], None):
        with tf.GradientTape() as tape:
            maps, logits = both(images)
            chosen = tf.argmax(logits, 1) if classes is None else classes
            score = tf.reduce_sum(tf.gather(logits, chosen, batch_dims=1))
        weights = tf.reduce_mean(tape.gradient(score, maps), (1, 2), keepdims=True)
        expected = tf.nn.relu(tf.reduce_sum(weights * maps, -1)).numpy()
        heat, found = kp.grad_cam(model, images, classes)
        assert found.tolist() == list(np.asarray(chosen))
        assert (heat.max((1, 2)) > 0).any()
        np.testing.assert_allclose(heat * expected.max((1, 2), keepdims=True), expected, atol=1e-5)


def test_the_class_is_seen_where_it_is():
    """A network that looks for red, one pixel at a time."""
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.set_weights([np.float32([[1, 0], [0, 1], [0, 1]]), np.zeros(2)])
    image = np.zeros((1, 4, 4, 3), "float32")
    image[0, 1, 2, 0], image[0, 3, 3, 0], image[0, 0, 0, 1] = 2, 1, 1
    heat, classes = kp.grad_cam(model, image)
    assert classes == [0] and heat[0, 1, 2] == 1 and heat[0, 3, 3] == 0.5 and heat.sum() == 1.5
    heat, _ = kp.grad_cam(model, image, [1])
    assert heat[0, 0, 0] == 1 and heat.sum() == 1


def test_overlays_are_warm_where_the_heat_is():
    picture = np.asarray(explanation.overlay(np.full((32, 48, 3), 128, "uint8"), np.eye(8)))
    assert picture.shape == (224, 336, 3)
    red, blue = picture[0, 0], picture[0, -1]
    assert red[0] > red[2] and blue[2] > blue[0]


@pytest.mark.parametrize("shape, told", [
    ((16, 16, 3), r"x\[None\] makes a batch of one image. Received: \(16, 16, 3\)"),
    ((1, 9, 16, 3), r"\(images, 16, 16, 3\).* Received: \(1, 9, 16, 3\)"),
    ((1, 16, 16, 1), r"Received: \(1, 16, 16, 1\)"),
    ((0, 16, 16, 3), r"one at least.* Received: \(0, 16, 16, 3\)"),
], ids=str)
def test_images_that_the_network_does_not_take(shape, told):
    with pytest.raises(ValueError, match=f"`x` must be images of shape .*{told}"):
        kp.grad_cam(build(tiny(), (16, 16, 3)), np.zeros(shape, "float32"))


@pytest.mark.parametrize("x", [[[0.0]], None], ids=str)
def test_what_is_no_array_of_images(x):
    with pytest.raises(ValueError, match=f"`x` must be images of shape .*Received: {type(x).__name__}"):
        kp.grad_cam(build(tiny(), (16, 16, 3)), x)


@pytest.mark.parametrize("call", [
    lambda model: kp.grad_cam(model, None), kp.feature_pyramid, kp.simplify_for_inference, kp.freeze,
    lambda model: kp.recalibrate(model, None),
], ids=["grad_cam", "feature_pyramid", "simplify", "freeze", "recalibrate"])
@pytest.mark.parametrize("model", [None, np.zeros(3)], ids=["None", "array"])
def test_what_is_no_model_is_refused(call, model):
    with pytest.raises(ValueError, match=f"`model` must be a Keras model. Received: {type(model).__name__}"):
        call(model)


@pytest.mark.parametrize("classes", [[5], [-1], [0, 1], ["cat"], [1.0]])
def test_classes_that_are_not_there(classes):
    with pytest.raises(ValueError, match="an index below 5 for each of the 1 images. Received: "):
        kp.grad_cam(build(tiny(), (16, 16, 3)), images_like((16, 16, 3), 1), classes)


def test_networks_without_a_top_are_refused():
    with pytest.raises(ValueError, match="must end with global average pooling and a dense layer.*which ends with"):
        kp.grad_cam(ResNet(tiny(), include_top=False), images_like((16, 16, 3)))


def test_the_command(tmp_path, capsys):
    from keras_preact import cli

    file = next((Path(__file__).parent.parent / "examples" / "images").glob("frog*"))
    copy = tmp_path / "frog.png"
    copy.write_bytes(file.read_bytes())
    assert cli.main(["explain", str(copy)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'frog_grad_cam.png'}  frog 100.0%\n"
    picture = np.asarray(Image.open(tmp_path / "frog_grad_cam.png"))
    assert cli.main(["explain", str(copy), "--class", "truck", "--output", str(tmp_path / "truck.png")]) == 0
    other = np.asarray(Image.open(tmp_path / "truck.png"))
    assert picture.shape == other.shape == (224, 224, 3) and (picture != other).any()


@pytest.mark.parametrize("arguments, message", [
    (["-"], "Give --output, the name of a PNG file"),
    (["IMAGE", "--output", "a.jpg"], "--output must end in .png. Received: a.jpg"),
    (["IMAGE", "--class", "frogs"], "`--class` must be one of 'airplane'"),
    (["none.png"], "none.png"),
])
def test_commands_that_cannot_be_run(arguments, message, capsys):
    from keras_preact import cli

    image = str(Path(__file__).parent.parent / "examples" / "images" / "cat_0000.png")
    assert cli.main(["explain", *(image if a == "IMAGE" else a for a in arguments)]) == 2
    assert message in capsys.readouterr().err
