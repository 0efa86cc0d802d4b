"""keras.applications' ResNet50V2 in our layout for it, as a witness from outside."""
from dataclasses import replace

import keras
import pytest
from helpers import images_like, outputs_of, randomize, relative_error

from keras_preact.networks import NetworkConfig, ResNet

CONFIG = NetworkConfig.imagenet(
    50, first_activation="unit", stride_on="last_unit", use_bias=True, epsilon=1.001e-5, pool_padding="zeros"
)


def their_name(name):
    """Our layer name in the words of keras.applications."""
    special = {"stem_conv": "conv1_conv", "closing_bn": "post_bn", "predictions": "predictions"}
    if name in special:
        return special[name]
    stage, unit, layer = name.split("_", 2)
    block = f"conv{int(stage.removeprefix('stage')) + 1}_block{unit.removeprefix('unit')}"
    layers = {"bn1": "preact_bn", "conv1": "1_conv", "bn2": "1_bn", "conv2": "2_conv", "bn3": "2_bn", "conv3": "3_conv",
              "shortcut_conv": "0_conv"}
    return f"{block}_{layers[layer]}"


@pytest.fixture(scope="module")
def theirs():
    model = keras.applications.ResNet50V2(
        weights=None, input_shape=(64, 64, 3), classes=10, classifier_activation=None
    )
    randomize(model, seed=3)
    return model


def ours_with(source, config):
    model = ResNet(config, input_shape=(64, 64, 3), classes=10, classifier_activation=None)
    sources = {their_name(layer.name): layer for layer in model.layers if layer.weights}
    assert set(sources) == {layer.name for layer in source.layers if layer.weights}
    for name, layer in sources.items():
        layer.set_weights(source.get_layer(name).get_weights())
    return model


def test_resnet50v2_agrees(theirs):
    images = images_like((64, 64, 3))
    assert relative_error(outputs_of(ours_with(theirs, CONFIG), images), outputs_of(theirs, images)) < 1e-4


@pytest.mark.parametrize("change", [{"stride_on": "conv3x3"}, {"pool_padding": "minus_infinity"}, {"epsilon": 1e-2}],
                         ids=str)
def test_other_layouts_do_not_agree(theirs, change):
    images = images_like((64, 64, 3))
    wrong = ours_with(theirs, replace(CONFIG, **change))
    assert relative_error(outputs_of(wrong, images), outputs_of(theirs, images)) > 1e-3
