"""Simplified networks give the same outputs, in every order, unit, shortcut and join."""
import itertools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import build, images_like, outputs_of, randomize, relative_error, slow

from keras_preact import PreActResNet20, simplify_for_inference
from keras_preact.data.preprocessing import Preprocessing, normalize
from keras_preact.networks.building import ResNet
from keras_preact.networks.config import ORDERS, NetworkConfig


def normalizations(model):
    return [layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def check(model, images=None):
    images = images_like(tuple(side or 16 for side in model.input_shape[1:])) if images is None else images
    before = model.get_weights()
    simple = simplify_for_inference(model)
    assert relative_error(outputs_of(simple, images), outputs_of(model, images)) < 1e-5
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    return simple


UNITS = (
    ("single", "zero_pad"), ("basic", "zero_pad"), ("basic", "project_on_change"), ("bottleneck", "project_stages"),
)
JOINS = (("plain",), ("scaled", 0.5, 0.5), ("exclusive_gate", -1), ("shortcut_gate", -1), ("dropout", 0.5))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("unit, shortcut", UNITS)
def test_orders_and_units(order, unit, shortcut):
    config = NetworkConfig((2, 2, 1), (4, 6, 8), unit, order, shortcut)
    positive, both = (build(config, (16, 16, 3), gamma_signs=signs) for signs in ((1,), (1, -1)))
    found = normalizations(check(positive))
    # What follows a conv always goes; what follows an addition, where all takers are convs and all gammas positive.
    shared = ["stage2_unit1_bn1", "stage3_unit1_bn1"] if shortcut == "zero_pad" else []
    if order == "full_preactivation":
        assert found == shared
        assert len(found) < len(normalizations(check(both))) < len(normalizations(both))
    elif order == "bn_after_addition":
        # Before an identity shortcut the factor has nowhere to go.
        assert "stage1_unit1_out_bn" in found and all("_out_bn" in name for name in found)
    else:
        assert found == []


@pytest.mark.parametrize("join", JOINS, ids=lambda join: join[0])
def test_joins(join):
    check(build(NetworkConfig((2, 2), (4, 6), join=join), (16, 16, 3), gamma_signs=(1,)))


@pytest.mark.parametrize("first, stride, bias, pool", [*itertools.product(
    ("stem", "unit", "both"), ("conv3x3", "last_unit"), (False, True), ("zeros", "minus_infinity"),
)])
def test_layouts_of_other_zoos(first, stride, bias, pool):
    config = NetworkConfig(
        (2, 2), (4, 6), "bottleneck", shortcut="project_on_change", stem="conv7x7_pool", first_activation=first,
        stride_on=stride, use_bias=bias, pool_padding=pool,
    )
    check(build(config, (32, 32, 3), gamma_signs=(1,)))


@pytest.mark.parametrize("changes", [{"stride_on": "last_unit"}, {"widths": (6, 6)}], ids=str)
def test_offsets_pass_shortcuts_that_leave_out_pixels(changes):
    config = NetworkConfig(**{"units": (2, 2), "widths": (4, 6), "shortcut": "project_on_change"} | changes)
    model = build(config, (16, 16, 3), gamma_signs=(1,))
    assert any(layer.name.endswith("_shortcut_pool") for layer in model.layers)
    assert normalizations(check(model)) == []


def normalized_sum():
    """A sum of two convs and a batch normalization of it, of images (8, 8, 3)."""
    inputs = keras.Input((8, 8, 3))
    total = keras.layers.Add()([keras.layers.Conv2D(2, 1)(inputs) for _ in range(2)])
    return inputs, total, keras.layers.BatchNormalization(name="bn")(total)


@pytest.mark.parametrize("follow", [
    lambda x: keras.layers.Activation("sigmoid")(x),
    lambda x: x,
    lambda x: keras.layers.Concatenate()([keras.layers.Conv2D(2, 1)(keras.layers.ReLU()(x)), x]),
], ids=["sigmoid", "nothing", "a ReLU and something else"])
def test_what_no_relu_alone_follows_stays(follow):
    inputs, _, x = normalized_sum()
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1)(follow(x)))
    randomize(model, 3, gamma_signs=(1,))
    assert normalizations(check(model)) == ["bn"]


def test_offsets_pass_shortcuts_that_add_channels():
    inputs, total, x = normalized_sum()
    branch = keras.layers.Conv2D(5, 3, padding="same")(keras.layers.ReLU()(x))
    padded = keras.layers.ZeroPadding2D(((0, 0), (0, 3)), data_format="channels_first")(total)
    y = keras.layers.BatchNormalization()(keras.layers.Add()([padded, branch]))
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1)(keras.layers.ReLU()(y)))
    randomize(model, 3, gamma_signs=(1,))
    assert normalizations(check(model)) == []


def test_a_hand_computed_chain():
    """One channel, 1x1 convs: y = x + 2 relu(3 x + 6), then relu(0.5 y - 1) times 4."""
    inputs = keras.Input((1, 1, 1))
    layers = keras.layers
    stem = layers.Conv2D(1, 1, use_bias=False, name="stem")(inputs)
    zero = layers.Conv2D(1, 1, use_bias=False, name="zero")(inputs)
    x = layers.Add()([stem, zero])
    branch = layers.Conv2D(1, 1, use_bias=False, name="branch")(layers.ReLU()(layers.BatchNormalization(name="bn1")(x)))
    y = layers.Add()([x, branch])
    out = layers.Conv2D(1, 1, use_bias=False, name="out")(layers.ReLU()(layers.BatchNormalization(name="bn2")(y)))
    model = keras.Model(inputs, out)
    for name, value in (("stem", 1), ("zero", 0), ("branch", 2), ("out", 4)):
        model.get_layer(name).set_weights([np.full((1, 1, 1, 1), value)])
    variance = np.full(1, 1 - 1e-3)  # with epsilon 1
    model.get_layer("bn1").set_weights([np.full(1, 3.0), np.full(1, 6.0), np.zeros(1), variance])
    model.get_layer("bn2").set_weights([np.full(1, 0.5), np.full(1, -0.5), np.ones(1), variance])
    simple = simplify_for_inference(model)
    assert not normalizations(simple)
    # x = 1: y = 1 + 2 * 9 = 19, 0.5 * 19 - 1 = 8.5, times 4. x = -3: y = -3, nothing passes.
    found = outputs_of(simple, np.float32([1, -3]).reshape(2, 1, 1, 1)).ravel()
    np.testing.assert_allclose(found, [34, 0], rtol=1e-6)
    # The sum now carries bn1's 6 / 3 = 2, then bn2's -1 / 0.5 = -2: biases 2 and -2 - 2.
    assert simple.get_layer("zero").bias.numpy() == pytest.approx(2)
    assert simple.get_layer("branch").bias.numpy() == pytest.approx(-4)
    assert simple.get_layer("branch").kernel.numpy().ravel() == pytest.approx(6)


def test_a_gamma_of_zero():
    """Where beta is, too, nothing passes, and there is no factor to divide by."""
    model = build(NetworkConfig((2, 1), (4, 6)), (16, 16, 3), gamma_signs=(1,))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, *rest = layer.get_weights()
            gamma[0] = beta[0] = gamma[1] = 0
            layer.set_weights([gamma, beta, *rest])
    check(model)


def test_the_shipped_weights():
    model = PreActResNet20(weights="cifar10")
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("uint8")
    preprocessing = Preprocessing((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), (32, 32))
    simple = check(model, normalize(images, preprocessing))
    assert len(normalizations(simple)) < len(normalizations(model)) / 2
    assert simple.preprocessing == model.preprocessing and simple.labels[3] == "cat"


def test_fine_tuned_networks_and_features():
    config = NetworkConfig((2, 2), (4, 6), shortcut="project_on_change")
    features = ResNet(config, include_top=False, input_shape=(None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(features.output)
    x = keras.layers.Dense(7, activation="relu")(keras.layers.Dropout(0.5)(x))
    model = keras.Model(features.input, [features.output, keras.layers.Dense(2, activation="softmax")(x)])
    randomize(model, 1, gamma_signs=(1,))
    images = images_like((12, 14, 3))
    simple = simplify_for_inference(model)
    for a, b in zip(simple(images), model(images)):
        assert relative_error(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b)) < 1e-5
    # The last feature map is an output, so that its scale cannot move into the dense layer.
    assert normalizations(simple) == ["closing_bn"]


@pytest.mark.parametrize("deviations, stays", [(29.9, False), (30.1, True), (-29.9, False), (-30.1, True)])
def test_large_offsets_stay(deviations, stays):
    model = build(NetworkConfig((3,), (4,)), (8, 8, 3), gamma_signs=(1,))
    layer = model.get_layer("stage1_unit2_bn1")
    gamma, beta, mean, variance = layer.get_weights()
    # Where the mean is 0, gamma x / deviation + beta is gamma / deviation (x + deviation beta / gamma).
    beta[1], mean[1] = deviations * gamma[1], 0
    layer.set_weights([gamma, beta, mean, variance])
    assert normalizations(check(model)) == ["stage1_unit2_bn1"] * stays


def test_normalization_by_statistics_alone_by_hand():
    """(2 x - 1) / 4, where there is no gamma and no beta."""
    inputs = keras.Input((1, 1, 1))
    x = keras.layers.Conv2D(1, 1, use_bias=False)(inputs)
    model = keras.Model(inputs, keras.layers.BatchNormalization(epsilon=1, center=False, scale=False)(x))
    model.set_weights([np.full((1, 1, 1, 1), 2.0), np.ones(1), np.full(1, 15.0)])
    simple = simplify_for_inference(model)
    assert not normalizations(simple)
    assert outputs_of(simple, np.float32([1, -3]).reshape(2, 1, 1, 1)).ravel().tolist() == [0.25, -1.75]


def test_layers_that_are_used_twice_stay():
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(4, name="shared")
    model = keras.Model(inputs, dense(dense(inputs)))
    model.set_weights([np.diag([1, 2, 3, 4]).astype("float32"), np.float32([0, 0, 0, 1])])
    # Twice the diagonal, and 4 times 1 plus 1.
    assert outputs_of(simplify_for_inference(model), np.ones((1, 4), "float32")).tolist() == [[1, 4, 9, 21]]


def test_a_network_that_is_used_twice_and_one_whose_layers_belong_to_another():
    base = ResNet(NetworkConfig((2, 2), (4, 6)), include_top=False, pooling="avg", input_shape=(12, 12, 3))
    randomize(base, 2, gamma_signs=(1,))
    images = images_like((12, 12, 3))
    first, second = keras.Input((12, 12, 3)), keras.Input((12, 12, 3))
    twice = simplify_for_inference(keras.Model([first, second], keras.layers.Subtract()([base(first), base(second)])))
    expected = outputs_of(base, images) - outputs_of(base, images + 1)
    np.testing.assert_allclose(twice([images, images + 1]), expected, atol=1e-5)
    # The layers of `again` have the nodes of `base` as their first ones.
    x = again = keras.Input((12, 12, 3))
    for layer in base.layers[1:3]:
        x = layer(x)
    assert normalizations(check(keras.Model(again, x))) == []


def test_a_subclass_has_no_graph():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match=r"own\w* must be a functional model, or a Sequential one that starts with"):
        simplify_for_inference(Own())


def test_a_network_inside_another():
    base = ResNet(NetworkConfig((2, 2), (4, 6)), include_top=False, pooling="avg", input_shape=(12, 12, 3))
    randomize(base, 2, gamma_signs=(1,))
    inputs = keras.Input((12, 12, 3))
    keras.Model(inputs, keras.layers.Dense(2)(base(inputs)))  # another model that uses it
    inputs = keras.Input((12, 12, 3))
    simple = check(keras.Model(inputs, keras.layers.Dense(3)(base(inputs))))
    assert len(normalizations(simple)) < len(normalizations(base))


REPORT = """
import sys
import numpy as np, tensorflow as tf
import keras_preact as kp
from helpers import build
from keras_preact.networks.config import NetworkConfig

for order in ("original", "relu_before_addition", "full_preactivation"):
    for unit, shortcut in (("basic", "zero_pad"), ("bottleneck", "project_on_change")):
        model = build(NetworkConfig((2, 2), (4, 8), unit, order, shortcut), (8, 8, 3), gamma_signs=(1,))
        tf.function(kp.simplify_for_inference(model, *map(bool, sys.argv[1:])))(np.zeros((2, 8, 8, 3), "float32"))
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="is about TensorFlow's graph optimizer")
@pytest.mark.parametrize("keep_relu", [pytest.param([], id="by default"), slow(["keep"], id="keep_relu")])
def test_tensorflow_fuses_what_follows_a_conv(keep_relu):
    # Grappler says that a pass failed in its log alone; the second case holds that it would, else ReLUs could stay.
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", REPORT, *keep_relu]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ("remapper failed" in found.stderr) == bool(keep_relu)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="ReLUs stay elsewhere")
def test_relus_of_shared_sums_become_operations_and_are_saved(tmp_path):
    model = build(NetworkConfig((2, 2), (4, 8)), (8, 8, 3), gamma_signs=(1,))
    simple = check(model)
    relus = [layer.name for layer in simple.layers if isinstance(layer, keras.layers.ReLU)]
    # The closing ReLU takes a sum that nothing else takes; that of stage 2 an unfolded batch normalization.
    assert "closing_relu" in relus and "stage2_unit1_relu1" in relus
    assert "stage1_unit2_relu1" not in relus and "stage2_unit2_relu1" not in relus
    simple.save(tmp_path / "simple.keras")
    images = images_like((8, 8, 3))
    np.testing.assert_array_equal(
        outputs_of(keras.models.load_model(tmp_path / "simple.keras"), images), outputs_of(simple, images)
    )
    check(simple)  # once more
    kept = simplify_for_inference(model, keep_relu=True)
    assert len([layer for layer in kept.layers if isinstance(layer, keras.layers.ReLU)]) == len(relus) + 2
