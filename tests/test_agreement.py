"""Networks agree with the reference, an independent forward pass in NumPy, and wrong ones do not."""
from itertools import product

import keras
import pytest
import reference
from helpers import build, config_kwargs, disagreement, images_like, outputs_of, relative_error, tiny, weights_of

from keras_preact.networks import building, units
from keras_preact.networks.config import CHOICES, ORDERS, NetworkConfig

AGREE, DIFFER = 1e-5, 1e-3
UNITS, SHORTCUTS = CHOICES["unit"], CHOICES["shortcut"]
JOINS = [("plain",), ("scaled", 0, 1), ("scaled", 0.5, 1), ("scaled", 0.5, 0.5), ("scaled", 0.5, 0.25),
         ("exclusive_gate", -6), ("shortcut_gate", 0), ("dropout", 0.5)]
LARGE = {"stem": "conv7x7_pool"}


def shortcut_of(unit):
    return "project_on_change" if unit == "bottleneck" else "zero_pad"


def assert_agrees(shape=(9, 11, 3), **changes):
    config = tiny(**changes)
    assert disagreement(build(config, shape), config_kwargs(config)) < AGREE


@pytest.mark.parametrize("order, unit, shortcut", [
    case for case in product(ORDERS, UNITS, SHORTCUTS) if case[1:] != ("bottleneck", "zero_pad")
])
def test_orders_units_and_shortcuts_agree(order, unit, shortcut):
    assert_agrees(order=order, unit=unit, shortcut=shortcut)


@pytest.mark.parametrize("order", ["original", "full_preactivation"])
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("join", JOINS, ids=str)
def test_joins_agree(join, unit, order):
    assert_agrees(join=join, unit=unit, order=order, shortcut=shortcut_of(unit))


@pytest.mark.parametrize("join", JOINS, ids=str)
def test_joins_of_projections_agree(join):
    assert_agrees(join=join, shortcut="project_always")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("first_activation", CHOICES["first_activation"])
@pytest.mark.parametrize("stem", [{}, LARGE | {"pool_padding": "zeros"}, LARGE | {"pool_padding": "minus_infinity"}],
                         ids=["conv3x3", "zeros", "minus_infinity"])
def test_stems_agree(stem, first_activation, order):
    assert_agrees((33, 38, 3) if stem else (8, 8, 3), order=order, first_activation=first_activation, **stem)


@pytest.mark.parametrize("stride_on", CHOICES["stride_on"])
@pytest.mark.parametrize("unit, shortcut", [
    ("single", "zero_pad"), ("basic", "zero_pad"), ("basic", "project_on_change"), ("bottleneck", "project_on_change"),
])
def test_stride_placements_agree(stride_on, unit, shortcut):
    assert_agrees(stride_on=stride_on, unit=unit, shortcut=shortcut)


@pytest.mark.parametrize("changes", [
    {"epsilon": 1e-5},
    {"epsilon": 2e-5},
    {"epsilon": 1.001e-5},
    {"epsilon": 0.1},
    {"normalize_input": True},
    {"normalize_input": True, "epsilon": 0.1, **LARGE},
    {"use_bias": True},
    {"use_bias": True, "order": "original", "shortcut": "project_always"},
    {"units": (2,), "widths": (5,)},
    {"units": (1, 1, 1, 2), "widths": (3, 3, 5, 7)},
    {"units": (1, 2, 2), "widths": (6, 6, 6)},
    {"units": (1, 1, 1), "widths": (8, 6, 4), "shortcut": "project_on_change"},
], ids=str)
def test_other_choices_agree(changes):
    assert_agrees((17, 18, 3), **changes)


@pytest.mark.parametrize("height, width", [(4, 4), (5, 7), (15, 16), (16, 15), (31, 33)])
@pytest.mark.parametrize("unit", ["basic", "bottleneck"])
def test_any_input_size_agrees(height, width, unit):
    assert_agrees((height, width, 3), unit=unit, shortcut=shortcut_of(unit))


@pytest.mark.parametrize("size", range(32, 41))
def test_any_input_size_agrees_on_the_imagenet_stem(size):
    assert_agrees((size, 73 - size, 3), first_activation="unit", pool_padding="minus_infinity", **LARGE)


@pytest.mark.parametrize("channels", [1, 7])
def test_any_number_of_input_channels_agrees(channels):
    assert_agrees((8, 8, channels), normalize_input=True)


@pytest.mark.parametrize("changes", [
    {"order": "original"},
    {"unit": "bottleneck", "shortcut": "project_on_change", "join": ("exclusive_gate", -6)},
    {"normalize_input": True, "pool_padding": "minus_infinity", **LARGE},
    {"stride_on": "last_unit", "use_bias": True},
], ids=str)
def test_channels_first_agrees(changes, channels_first):
    config = tiny(**changes)
    model = build(config, (3, 33, 38))
    images = images_like((33, 38, 3))
    expected = reference.forward(weights_of(model), images, **config_kwargs(config))
    assert relative_error(outputs_of(model, images.transpose(0, 3, 1, 2)), expected) < AGREE


# The layouts that zoos publish under this name: what we call each, and what it is.
CIFAR, BOTTLENECK = {"units": (2, 2, 1)}, {"unit": "bottleneck", "shortcut": "project_on_change"}
IMAGENET = {"units": (2, 2, 1, 1), "stem": "conv7x7_pool", **BOTTLENECK}
LAYOUTS = {
    "cifar_bottleneck": (
        NetworkConfig.cifar(164, "bottleneck"),
        {**CIFAR, **BOTTLENECK, "first_activation": "stem", "stride_on": "first_conv", "epsilon": 1e-5},
    ),
    "cifar_basic": (
        NetworkConfig.cifar(110),
        {**CIFAR, "unit": "basic", "shortcut": "zero_pad", "first_activation": "stem", "epsilon": 1e-5},
    ),
    "imagenet": (
        NetworkConfig.imagenet(200),
        {**IMAGENET, "first_activation": "stem", "stride_on": "conv3x3", "epsilon": 1e-5},
    ),
    "timm": (
        NetworkConfig.imagenet(50, first_activation="unit", pool_padding="minus_infinity"),
        {**IMAGENET, "first_activation": "unit", "stride_on": "conv3x3", "pool_padding": "minus_infinity"},
    ),
    "keras_applications": (
        NetworkConfig.imagenet(50, first_activation="unit", stride_on="last_unit", use_bias=True, epsilon=1.001e-5),
        {**IMAGENET, "first_activation": "unit", "stride_on": "last_unit", "pool_padding": "zeros",
         "epsilon": 1.001e-5},
    ),
    "pytorchcv": (
        NetworkConfig.imagenet(50, first_activation="both", stride_on="first_conv"),
        {**IMAGENET, "first_activation": "both", "stride_on": "first_conv"},
    ),
    "pytorchcv_b": (
        NetworkConfig.imagenet(50, first_activation="both"),
        {**IMAGENET, "first_activation": "both", "stride_on": "conv3x3"},
    ),
    "pytorchcv_cifar_basic": (
        NetworkConfig.cifar(20, first_activation="unit", shortcut="project_on_change"),
        {**CIFAR, "first_activation": "unit", "shortcut": "project_on_change"},
    ),
    "pytorchcv_cifar_bottleneck": (
        NetworkConfig.cifar(164, "bottleneck", first_activation="unit", stride_on="conv3x3"),
        {**CIFAR, **BOTTLENECK, "first_activation": "unit", "stride_on": "conv3x3"},
    ),
    "mxnet": (
        NetworkConfig.imagenet(50, first_activation="both", shortcut="project_stages", epsilon=2e-5,
                               normalize_input=True),
        {**IMAGENET, "first_activation": "both", "stride_on": "conv3x3", "shortcut": "project_stages",
         "epsilon": 2e-5, "normalize_input": True},
    ),
    "mxnet_basic": (
        NetworkConfig.imagenet(18, first_activation="both", shortcut="project_stages", epsilon=2e-5,
                               normalize_input=True),
        {**IMAGENET, "unit": "basic", "first_activation": "both", "shortcut": "project_stages", "epsilon": 2e-5,
         "normalize_input": True},
    ),
}


def build_layout(name):
    config, _ = LAYOUTS[name]
    return build(tiny(config), (35, 33, 3) if config.stem == "conv7x7_pool" else (9, 11, 3))


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_agree(name):
    assert disagreement(build_layout(name), LAYOUTS[name][1]) < AGREE


def test_layouts_have_the_biases_they_are_known_for():
    for name in LAYOUTS:
        model = build_layout(name)
        biased = {weight.split("/")[0] for weight in weights_of(model) if weight.endswith("/bias")} - {"predictions"}
        expected = {
            layer.name for layer in model.layers
            if layer.name == "stem_conv" or layer.name.endswith(("_conv3", "_shortcut_conv"))
        } if name == "keras_applications" else set()
        assert biased == expected, name


# The checks above can fail: each of these changes, on one side only, is far beyond rounding.

def assert_differs(config, reference_changes, shape=(9, 11, 3), rename=None):
    model = build(config, shape)
    weights = weights_of(model)
    for old, new in (rename or {}).items():
        weights = {name.replace(old, new): value for name, value in weights.items()}
    assert disagreement(model, config_kwargs(config) | reference_changes, weights) > DIFFER


@pytest.mark.parametrize("unit, stride_on, wrong", [
    ("basic", "first_conv", "last_unit"),
    ("basic", "last_unit", "conv3x3"),
    ("bottleneck", "first_conv", "conv3x3"),
    ("bottleneck", "conv3x3", "first_conv"),
    ("bottleneck", "conv3x3", "last_unit"),
    ("bottleneck", "last_unit", "conv3x3"),
])
def test_a_moved_stride_is_noticed(unit, stride_on, wrong):
    config = tiny(unit=unit, stride_on=stride_on, shortcut=shortcut_of(unit))
    assert_differs(config, {"stride_on": wrong})


SAME_WEIGHTS = ["original", "relu_before_addition", "relu_preactivation"]


@pytest.mark.parametrize("order, wrong", [pair for pair in product(SAME_WEIGHTS, repeat=2) if pair[0] != pair[1]])
def test_a_swapped_order_is_noticed(order, wrong):
    assert_differs(tiny(order=order), {"order": wrong})


@pytest.mark.parametrize("order, wrong", [
    ("original", ("", "rb", "b", "r")),
    ("bn_after_addition", ("", "br", "", "rb")),
    ("relu_before_addition", ("", "br", "rb", "")),
    ("relu_preactivation", ("", "br", "b", "")),
    ("full_preactivation", ("rb", "", "", "")),
])
def test_swapped_steps_of_an_order_are_noticed(order, wrong, monkeypatch):
    monkeypatch.setitem(reference.ORDERS, order, wrong)
    assert_differs(tiny(order=order), {})


@pytest.mark.parametrize("order", ORDERS)
def test_epsilon_is_noticed(order):
    config = tiny(order=order, shortcut="project_on_change")
    model = build(config)
    wrong = config_kwargs(config) | {"epsilon": 1e-3}
    assert disagreement(model, wrong) > 1e-4


@pytest.mark.parametrize("changes, shape", [
    ({}, (8, 8, 3)),
    ({"unit": "bottleneck", "stride_on": "conv3x3", "shortcut": "project_on_change"}, (8, 8, 3)),
    ({"units": (2,), "widths": (4,), **LARGE}, (32, 32, 3)),
], ids=["basic", "bottleneck", "stem"])
def test_same_padding_at_stride_2_is_noticed(changes, shape):
    assert_differs(tiny(**changes), {"padding": "same"}, shape)


FIRST_BN = {"stem_bn/": "stage1_unit1_bn1/"}
SHARED = {**LARGE, "pool_padding": "minus_infinity", **BOTTLENECK}  # both paths of unit 1 take the pre-activation


def test_pooling_before_the_first_activation_is_noticed():
    config = tiny(**SHARED, first_activation="stem")
    assert_differs(config, {"first_activation": "unit"}, (33, 38, 3), FIRST_BN)


def test_pooling_before_the_first_activation_is_not_noticed_with_positive_gammas():
    config = tiny(**SHARED, first_activation="stem")
    model = build(config, (33, 38, 3), gamma_signs=(1,))
    weights = {name.replace("stem_bn/", "stage1_unit1_bn1/"): value for name, value in weights_of(model).items()}
    assert disagreement(model, config_kwargs(config) | {"first_activation": "unit"}, weights) < AGREE


def test_a_raw_identity_in_the_first_unit_is_noticed():
    assert_differs(tiny(first_activation="stem"), {"first_activation": "unit"}, rename=FIRST_BN)


def test_the_pads_of_the_pool_are_noticed():
    config = tiny(**SHARED, first_activation="unit", use_bias=True)
    model = build(config, (33, 38, 3))
    bias = model.get_layer("stem_conv").bias
    bias.assign(bias - 3)
    assert disagreement(model, config_kwargs(config)) < AGREE
    assert disagreement(model, config_kwargs(config) | {"pool_padding": "zeros"}) > DIFFER


def test_zeros_before_the_channels_are_noticed(monkeypatch):
    after = units.SHORTCUTS["pad"]

    def before(x, unit):
        return keras.ops.roll(after(x, unit), unit.filters - unit.channels, axis=-1)

    monkeypatch.setitem(units.SHORTCUTS, "pad", before)
    assert_differs(tiny(), {})


@pytest.mark.parametrize("shortcut, kind", [("project_on_change", "project"), ("zero_pad", "pad")])
def test_a_shortcut_without_the_shared_activation_is_noticed(shortcut, kind, monkeypatch):
    raw, right = {}, units.SHORTCUTS[kind]

    def residual_unit(x, unit):
        raw[unit.name] = x
        return units.residual_unit(x, unit)

    monkeypatch.setattr(building, "residual_unit", residual_unit)
    monkeypatch.setitem(units.SHORTCUTS, kind, lambda x, unit: right(raw[unit.name], unit))
    assert_differs(tiny(shortcut=shortcut), {})
