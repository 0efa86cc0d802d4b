"""Costs equal the counts of an independent restatement, and those of the networks that are really built."""
import csv
from math import prod
from pathlib import Path

import pytest
from helpers import tiny

from keras_preact.networks.building import ResNet
from keras_preact.networks.config import NetworkConfig
from keras_preact.networks.costs import count, stages

ROWS = list(csv.DictReader((Path(__file__).parent / "data" / "expected_counts.csv").read_text().splitlines()))

PREACT, ORIGINAL = {}, {"order": "original"}
OPTION_B, BOTTLENECK = {"shortcut": "project_on_change"}, {"unit": "bottleneck"}
NAMES = {
    32: {
        "preact basic A": PREACT,
        "preact basic B": OPTION_B,
        "original basic A": ORIGINAL,
        "original basic B": ORIGINAL | OPTION_B,
        "preact bottleneck (canonical, stride on the first 1x1)": BOTTLENECK,
        "preact bottleneck, stride on 3x3": BOTTLENECK | {"stride_on": "conv3x3"},
        "original bottleneck (extrapolated)": BOTTLENECK | ORIGINAL,
    },
    224: {
        "preact (canonical)": PREACT,
        "preact, timm stem": {"first_activation": "unit", "pool_padding": "minus_infinity"},
        "preact, stride on 1x1": {"stride_on": "first_conv"},
        "original": ORIGINAL,
        "original (extrapolated)": ORIGINAL,
    },
}


def test_no_row_is_missing():
    assert len(ROWS) == 82
    assert {(int(row["input_size"]), row["network"]) for row in ROWS} == {
        (size, name) for size, names in NAMES.items() for name in names
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['network']}-{row['depth']}-{row['classes']}")
def test_costs_equal_the_expected_ones(row):
    size, depth, classes = (int(row[key]) for key in ("input_size", "depth", "classes"))
    changes = NAMES[size][row["network"]]
    config = (NetworkConfig.cifar if size == 32 else NetworkConfig.imagenet)(depth, **changes)
    expected = tuple(int(row[key]) for key in ("trainable_parameters", "batchnorm_statistics", "multiply_adds"))
    assert count(config, classes=classes) == expected
    assert count(config, (size, size), classes) == expected


# Of pytorchcv, whose source asserts them; its preresnet* have 128 more, those of a second batch normalization.
SHALLOW = {
    "preresnet": {10: 5417128, 12: 5491112, 14: 5786536, 16: 6967208, 26: 17958568},
    "resnet": {10: 5418792, 12: 5492776, 14: 5788200, 16: 6968872, 26: 17960232},
}


@pytest.mark.parametrize("depth", SHALLOW["resnet"])
def test_depths_of_pytorchcv_have_its_parameters(depth):
    assert count(NetworkConfig.imagenet(depth)).parameters == SHALLOW["preresnet"][depth] - 128
    assert count(NetworkConfig.imagenet(depth, first_activation="both")).parameters == SHALLOW["preresnet"][depth]
    assert count(NetworkConfig.imagenet(depth, order="original")).parameters == SHALLOW["resnet"][depth]


def cost_of(model):
    """Trainable and other weights, and multiply-adds by the shapes that Keras's layers have."""
    sizes = [sum(prod(v.shape) for v in weights) for weights in (model.trainable_weights, model.non_trainable_weights)]
    kernels = [layer for layer in model.layers if hasattr(layer, "kernel")]
    return *sizes, sum(prod(layer.kernel.shape) * prod(layer.output.shape[1:-1]) for layer in kernels)


CONFIGS = {
    **{order: tiny(order=order, shortcut="project_on_change") for order in (
        "original", "bn_after_addition", "relu_before_addition", "relu_preactivation", "full_preactivation")},
    "cifar20": NetworkConfig.cifar(20),
    "imagenet18": NetworkConfig.imagenet(18),
    "single": tiny(unit="single"),
    "zero_pad": tiny(),
    "bottleneck": tiny(unit="bottleneck", shortcut="project_on_change"),
    "stages": tiny(shortcut="project_stages"),
    "always": tiny(shortcut="project_always"),
    "always_original": tiny(shortcut="project_always", order="original"),
    "exclusive_gate": tiny(join=("exclusive_gate", -6)),
    "shortcut_gate": tiny(join=("shortcut_gate", 0), unit="bottleneck", shortcut="project_on_change"),
    "scaled": tiny(join=("scaled", 0.5, 0.5)),
    "plain_network": tiny(join=("scaled", 0, 1), shortcut="project_always"),
    "dropout": tiny(join=("dropout", 0.5)),
    "bias": tiny(use_bias=True, shortcut="project_always"),
    "imagenet_stem": tiny(stem="conv7x7_pool"),
    "both": tiny(stem="conv7x7_pool", first_activation="both"),
    "unit": tiny(first_activation="unit", order="relu_preactivation"),
    "last_unit": tiny(stride_on="last_unit", unit="bottleneck", shortcut="project_on_change"),
    "conv3x3": tiny(stride_on="conv3x3", unit="bottleneck", shortcut="project_on_change"),
    "normalize_input": tiny(normalize_input=True),
    "applications": tiny(NetworkConfig.imagenet(50, first_activation="unit", stride_on="last_unit", use_bias=True)),
    "mxnet": tiny(NetworkConfig.imagenet(50, first_activation="both", shortcut="project_stages",
                                         normalize_input=True)),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_costs_equal_those_of_the_built_network(config):
    size = (33, 38)
    assert count(config, size, 5) == cost_of(ResNet(config, input_shape=(*size, 3), classes=5))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_stage_table_has_the_sizes_of_the_built_network(config):
    model = ResNet(config, input_shape=(33, 38, 3))
    rows = stages(config, (33, 38))
    names = ["stem", *(f"stage{i + 1}" for i in range(len(config.units)))]
    sizes = [[layer.output.shape[1:3] for layer in model.layers if layer.name.startswith(f"{name}_")][-1]
             for name in names]
    assert [(row.name, row.size) for row in rows] == [*zip(names, sizes), ("head", (1, 1))]
    assert count(config, (33, 38)) == tuple(map(sum, zip(*(row.cost for row in rows))))
