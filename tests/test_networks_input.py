"""What networks take, and what they say of what they do not take."""
import re

import keras
import numpy as np
import pytest
from helpers import build, config_kwargs, images_like, outputs_of, randomize, relative_error, tiny, weights_of
from reference import forward

from keras_preact import PreActResNet20
from keras_preact.networks.building import ResNet
from keras_preact.networks.config import NetworkConfig

LARGE = {"stem": "conv7x7_pool"}


@pytest.mark.parametrize("case", [
    (lambda: tiny(order="preactivation"), "`order`", "'original'", "'full_preactivation'", "'preactivation'"),
    (lambda: tiny(shortcut="A"), "`shortcut`", "'zero_pad'", "'project_always'", "'A'"),
    (lambda: tiny(join="gate"), "`join`", "'plain'", "'shortcut_gate'", "'gate'"),
    (lambda: tiny(join=("gate", -6)), "`join`", "'exclusive_gate'", "'gate'"),
    (lambda: tiny(unit="wide"), "`unit`", "'basic', 'bottleneck'", "'wide'"),
    (lambda: tiny(stem="patchify"), "`stem`", "'conv3x3', 'conv7x7_pool'", "'patchify'"),
    (lambda: tiny(first_activation="none"), "`first_activation`", "'stem', 'unit', 'both'", "'none'"),
    (lambda: tiny(stride_on="conv1x1"), "`stride_on`", "'first_conv', 'conv3x3', 'last_unit'", "'conv1x1'"),
    (lambda: tiny(pool_padding="same"), "`pool_padding`", "'zeros', 'minus_infinity'", "'same'"),
    (lambda: tiny(unit="bottleneck"), "zero_pad", "project_on_change", "Received: unit='bottleneck'"),
    (lambda: tiny(widths=(8, 6, 4)), "do not shrink", "project_on_change", "(8, 6, 4)"),
    (lambda: tiny(units=(1, 2)), "one number for each stage", "(1, 2)", "(4, 6, 8)"),
    (lambda: tiny(units=(), widths=()), "`units`", "a positive integer for each stage", "()"),
    (lambda: tiny(units=(1, 0, 1)), "`units`", "a positive integer for each stage", "(1, 0, 1)"),
    (lambda: tiny(units=(True, 1, 1)), "`units`", "a positive integer for each stage", "(True, 1, 1)"),
    (lambda: tiny(units=(1, 10**8, 1)), "`units` must be at most 10,000 in all", "(1, 100000000, 1)"),
    (lambda: tiny(units=5), "`units`", "a positive integer for each stage", "5"),
    (lambda: tiny(widths=(4, 6, 8.5)), "`widths`", "a positive integer for each stage", "8.5"),
    (lambda: tiny(join=()), "`join`", "'plain'", "Received: ()"),
    (lambda: tiny(join=None), "`join`", "'plain'", "Received: None"),
    (lambda: tiny(join=("plain", 1)), "`join` 'plain' takes no values", "('plain', 1)"),
    (lambda: tiny(join=("scaled", 0.5)), "takes the numbers shortcut_scale, branch_scale", "('scaled', 0.5)"),
    (lambda: tiny(join=("exclusive_gate", "x")), "takes the numbers bias", "('exclusive_gate', 'x')"),
    (lambda: tiny(join=("dropout", 1)), "a rate of at least 0 and below 1", "('dropout', 1)"),
    (lambda: tiny(use_bias="no"), "`use_bias`", "True, False", "'no'"),
    (lambda: tiny(epsilon=-1), "`epsilon`", "a positive number", "-1"),
    (lambda: NetworkConfig.cifar("20"), "`depth` must be an integer, 6n+2", "'20'"),
    (lambda: NetworkConfig.cifar(21, "wide"), "`unit`", "'wide'"),
    (lambda: NetworkConfig.imagenet([50]), "18, 26, 34", "depth=[50]"),
    (lambda: NetworkConfig.cifar(21), "basic", "6n+2", "depth=21", "20 or 26"),
    (lambda: NetworkConfig.cifar(165, "bottleneck"), "bottleneck", "9n+2", "depth=165", "164 or 173"),
    (lambda: NetworkConfig.cifar(111, "single"), "single", "3n+2", "depth=111", "110 or 113"),
    (lambda: NetworkConfig.cifar(2), "6n+2", "depth=2", "nearest that fits is 8."),
    (lambda: NetworkConfig.cifar(-40), "6n+2", "depth=-40", "nearest that fits is 8."),
    (lambda: NetworkConfig.cifar(20, "wide"), "`unit`", "'basic'", "'wide'"),
    (lambda: NetworkConfig.imagenet(51), "10, 12, 14, 16, 18, 26, 34, 50, 101, 152, 200, 269", "depth=51"),
    (lambda: ResNet(tiny(), include_top=False, classes=5), "`classes`", "include_top=False", "classes=5"),
    (lambda: ResNet(tiny(), classes=0), "`classes`", "positive integer", "0"),
    (lambda: ResNet(tiny(), classes=-1), "`classes`", "positive integer", "-1"),
    (lambda: ResNet(tiny(), classes=2.5), "`classes`", "positive integer", "2.5"),
    (lambda: ResNet(tiny(), classes=True), "`classes`", "positive integer", "True"),
    (lambda: ResNet(tiny(), include_top="no"), "`include_top` must be True or False", "'no'"),
    (lambda: ResNet(tiny(), include_top=False, pooling="mean"), "`pooling`", "'avg' or 'max'", "'mean'"),
    (lambda: ResNet(tiny(), input_shape=(3, 8, 3)), "1/4", "at least 4 pixels", "(3, 8, 3)"),
    (lambda: ResNet(tiny(), input_shape=(None, 3, 3)), "1/4", "at least 4 pixels", "(None, 3, 3)"),
    (lambda: ResNet(tiny(**LARGE), input_shape=(15, 64, 3)), "1/16", "at least 16 pixels", "(15, 64, 3)"),
    (lambda: ResNet(NetworkConfig.imagenet(18), input_shape=(31, 32, 3)), "1/32", "at least 32 pixels", "(31, 32, 3)"),
    (lambda: ResNet(tiny(), input_tensor=keras.Input((3, 3, 3))), "at least 4 pixels", "(3, 3, 3)"),
    (lambda: ResNet(tiny(), input_shape=(8, 8)), "(height, width, channels)", "(8, 8)"),
    (lambda: ResNet(tiny(), input_shape=(8, 8, 8, 3)), "only height and width may be None", "(8, 8, 8, 3)"),
    (lambda: ResNet(tiny(), input_shape=(8, 8, None)), "only height and width may be None", "(8, 8, None)"),
    (lambda: ResNet(tiny(), input_shape=(8, 8, 0)), "positive integers", "(8, 8, 0)"),
    (lambda: ResNet(tiny(), input_shape=8), "(height, width, channels)", "Received: 8"),
    (lambda: ResNet(tiny(), input_shape="8x8"), "(height, width, channels)", "Received: '8x8'"),
    (lambda: PreActResNet20(weights="cifar10", input_shape=8), "(height, width, channels)", "Received: 8"),
    (lambda: PreActResNet20(weights="cifar10", input_shape="8x8"), "(height, width, channels)", "Received: '8x8'"),
    (lambda: PreActResNet20(weights="cifar10", input_shape=(8, 8)), "(height, width, channels)", "Received: (8, 8)"),
    (lambda: PreActResNet20(weights="cifar10", input_shape=()), "(height, width, channels)", "Received: ()"),
    (lambda: ResNet(tiny(), input_shape=(8, 8, 3), input_tensor=keras.Input((9, 9, 3))), "(8, 8, 3)", "(9, 9, 3)"),
    (lambda: ResNet(tiny(), input_shape=8, input_tensor=keras.Input((9, 9, 3))), "`input_tensor`", "8 and (9, 9, 3)"),
], ids=lambda case: "-".join(case[1:]))
def test_bad_values_are_told_the_rule_what_came_and_the_remedy(case):
    make, *words = case
    with pytest.raises(ValueError) as error:
        make()
    assert [word for word in words if word not in str(error.value)] == []


def test_a_shape_may_be_of_any_kind():
    tf = pytest.importorskip("tensorflow")
    for shape in np.array([8, 9, 3]), [8, 9, 3], tf.TensorShape([8, 9, 3]):
        assert ResNet(tiny(), input_shape=shape).input_shape == (None, 8, 9, 3)
        assert PreActResNet20(weights="cifar10", input_shape=shape).input_shape == (None, 8, 9, 3)


@pytest.mark.parametrize("config", [50, "resnet50", None, {"units": (1,)}])
def test_only_a_config_is_a_config(config):
    with pytest.raises(TypeError, match=f"`config` must be a NetworkConfig. Received: {re.escape(repr(config))}"):
        ResNet(config)


@pytest.mark.parametrize("tensor", [np.zeros((1, 8, 8, 3)), "image"])
def test_only_a_keras_tensor_is_an_input_tensor(tensor):
    with pytest.raises(TypeError, match="`input_tensor` must be a Keras tensor, as from keras.Input"):
        ResNet(tiny(), input_tensor=tensor)


def test_unknown_fields_are_named():
    for make in (NetworkConfig.cifar, NetworkConfig.imagenet):
        with pytest.raises(TypeError, match="shortcuts"):
            make(50, shortcuts="zero_pad")


def test_a_config_does_not_change():
    config = tiny(units=[1, 2, 1], widths=[4, 6, 8], join=["scaled", 0.5, 1])
    assert config == tiny(join=("scaled", 0.5, 1)) and hash(config) == hash(tiny(join=("scaled", 0.5, 1)))
    assert tiny(join="plain") == tiny() == tiny(units=np.array([1, 2, 1]).tolist(), widths=tuple(np.int64([4, 6, 8])))
    with pytest.raises(AttributeError):
        config.order = "original"


@pytest.mark.parametrize("config, shape, classes, stride", [
    (NetworkConfig.cifar(8), (32, 32, 3), 10, 4),
    (NetworkConfig.cifar(11, "bottleneck"), (32, 32, 3), 10, 4),
    (NetworkConfig.imagenet(18), (224, 224, 3), 1000, 32),
])
def test_defaults(config, shape, classes, stride):
    model = ResNet(config)
    assert model.input_shape == (None, *shape)
    assert model.output_shape == (None, classes)
    assert model.get_layer("predictions").activation is keras.activations.softmax
    assert config.stride == stride
    assert ResNet(config, include_top=False).input_shape == (None, None, None, 3)


@pytest.mark.parametrize("kwargs, expected", [
    ({"input_shape": (16, 17, 3)}, (None, 4, 5, 8)),
    ({"input_shape": (None, None, 3)}, (None, None, None, 8)),
    ({"input_shape": (16, 16, 3), "pooling": "avg"}, (None, 8)),
    ({"input_shape": (16, 16, 3), "pooling": "max"}, (None, 8)),
    ({}, (None, None, None, 8)),
], ids=str)
def test_outputs_without_the_top(kwargs, expected):
    model = ResNet(tiny(), include_top=False, **kwargs)
    assert model.output_shape == expected


def test_pooling_pools_the_features():
    models = {pooling: ResNet(tiny(), include_top=False, pooling=pooling) for pooling in (None, "avg", "max")}
    for model in models.values():
        randomize(model, seed=0)
    outputs = {pooling: outputs_of(model, images_like((9, 11, 3))) for pooling, model in models.items()}
    np.testing.assert_allclose(outputs["avg"], outputs[None].mean(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_array_equal(outputs["max"], outputs[None].max(axis=(1, 2)))


@pytest.mark.parametrize("config", [tiny(), tiny(**LARGE)], ids=["conv3x3", "conv7x7_pool"])
def test_one_network_takes_images_of_every_size(config):
    model = build(config, (None, None, 3))
    for shape in (16, 16, 3), (33, 20, 3):
        images = images_like(shape)
        expected = forward(weights_of(model), images, **config_kwargs(config))
        assert relative_error(outputs_of(model, images), expected) < 1e-5


@pytest.mark.parametrize("channels", [1, 7])
def test_any_number_of_channels_has_a_kernel(channels):
    model = ResNet(tiny(), input_shape=(None, None, channels))
    assert model.get_layer("stem_conv").kernel.shape == (3, 3, channels, 4)


def test_the_softmax_sums_to_one():
    model = ResNet(tiny(), input_shape=(8, 8, 3), classes=5)
    np.testing.assert_allclose(outputs_of(model, images_like((8, 8, 3))).sum(axis=1), 1, rtol=1e-5)


def test_an_input_tensor_may_be_the_output_of_layers():
    inputs = keras.Input((16, 16, 1), name="grey")
    model = ResNet(tiny(), input_tensor=keras.layers.Concatenate()([inputs] * 3), classes=5)
    randomize(model, seed=0)
    assert model.input is inputs
    plain = ResNet(tiny(), input_shape=(16, 16, 3), classes=5)
    plain.set_weights(model.get_weights())
    images = images_like((16, 16, 1))
    np.testing.assert_allclose(outputs_of(model, images), outputs_of(plain, images.repeat(3, axis=-1)), rtol=1e-5)


def test_an_input_tensor_may_be_an_input():
    inputs = keras.Input((8, 9, 2))
    model = ResNet(tiny(), input_tensor=inputs, input_shape=(8, 9, 2), name="mine")
    assert model.input is inputs and model.name == "mine"


def test_an_input_tensor_may_be_made_of_two_inputs():
    inputs = [keras.Input((8, 9, 1)), keras.Input((8, 9, 2))]
    model = ResNet(tiny(), input_tensor=keras.layers.Concatenate()(inputs))
    assert [tensor is given for tensor, given in zip(model.input, inputs, strict=True)] == [True, True]


def test_the_dense_layer_starts_as_that_of_torch():
    """By nn.Linear uniform between -1 / sqrt(n) and 1 / sqrt(n) of n inputs, here 1 / 8, but without biases."""
    kernel, bias = ResNet(NetworkConfig((1,), (64,)), classes=100).get_layer("predictions").get_weights()
    assert 0.99 / 8 < abs(kernel).max() <= 1 / 8 and not bias.any()
    assert abs(kernel.std() - 1 / 8 / 3**0.5) < 0.002 and abs(kernel.mean()) < 0.005


def test_channels_first_inputs(channels_first):
    assert ResNet(tiny()).input_shape == (None, 3, 32, 32)
    assert ResNet(tiny(), include_top=False).input_shape == (None, 3, None, None)
    assert ResNet(tiny(), include_top=False, input_shape=(1, 9, 16)).output_shape == (None, 8, 3, 4)
    with pytest.raises(ValueError, match=r"\(channels, height, width\), must be at least 4 pixels"):
        ResNet(tiny(), input_shape=(16, 16, 3))


POLICIES = {
    "mixed_bfloat16": ("float32", "bfloat16", "float32", 0.1),
    "mixed_float16": ("float32", "float16", "float32", 0.01),
    "bfloat16": ("bfloat16", "bfloat16", "float32", 0.1),
    "float64": ("float64", "float64", "float64", 1e-10),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("changes", [{}, {"order": "original", "join": ("exclusive_gate", 0)}, LARGE], ids=str)
def test_dtype_policies(policy, changes, dtype_policy):
    stored, computed, out, tolerance = POLICIES[policy]
    dtype_policy(policy)
    config = tiny(**changes)
    model = build(config, (16, 16, 3))
    layers = [layer for layer in model.layers if layer.weights and layer.name != "predictions"]
    assert {layer.compute_dtype for layer in layers} == {computed}
    assert {layer.kernel.dtype for layer in layers if hasattr(layer, "kernel")} == {stored}
    assert model.output.dtype == out
    images = images_like((16, 16, 3))
    expected = forward(weights_of(model), images, **config_kwargs(config))
    assert relative_error(outputs_of(model, images), expected) < tolerance


@pytest.mark.parametrize("config", [
    tiny(),
    tiny(order="original", shortcut="project_always", join=("exclusive_gate", -6)),
    tiny(unit="bottleneck", shortcut="project_stages", join=("dropout", 0.5), stride_on="last_unit", **LARGE),
    tiny(join=("scaled", 0.5, 0.5), pool_padding="minus_infinity", first_activation="unit", **LARGE),
], ids=["basic", "gated", "bottleneck", "scaled"])
def test_a_saved_network_is_the_same(config, tmp_path):
    model = build(config, (16, 18, 3))
    images = images_like((16, 18, 3))
    expected = outputs_of(model, images)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs_of(keras.saving.load_model(tmp_path / "model.keras"), images), expected)
    model.save_weights(tmp_path / "model.weights.h5")
    other = build(config, (16, 18, 3), seed=5)
    assert relative_error(outputs_of(other, images), expected) > 0.1
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(outputs_of(other, images), expected)
