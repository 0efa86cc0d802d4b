"""Batch normalization by fused kernels and over groups: Keras's numbers, and those computed by hand."""
import keras
import numpy as np
import pytest
from helpers import build, images_like, outputs_of, slow, weights_of

import keras_preact as kp
from keras_preact.networks.config import NetworkConfig
from keras_preact.training.optimizers import SGD
from keras_preact.training.recipes import Recipe

BACKEND = keras.backend.backend()
FUSES = BACKEND in ("tensorflow", "torch")
on_fused_backends = pytest.mark.skipif(not FUSES, reason="XLA fuses by itself")
GAMMA, BETA = np.array([1.5, -0.7, 0.2]), np.array([0.3, 0.0, -1.0])


def one_layer(shape=(4, 5, 3), **kwargs):
    """A 1x1 conv, which hands on the gradient of its outputs, before the normalization."""
    axis = 1 if keras.config.image_data_format() == "channels_first" else -1
    model = keras.Sequential([
        keras.Input(shape), keras.layers.Conv2D(3, 1, use_bias=False), keras.layers.BatchNormalization(axis, **kwargs),
    ])
    rng = np.random.default_rng(2)
    model.layers[0].kernel.assign(rng.normal(size=(1, 1, 3, 3)))
    for name, value in (("gamma", GAMMA), ("beta", BETA)):
        if getattr(model.layers[1], name, None) is not None:
            getattr(model.layers[1], name).assign(value)
    return model


def step_by_hand(model, x, upstream, group):
    """What one step of SGD with rate 1 leaves of the `one_layer` network for the loss sum(upstream * outputs)."""
    kernel, normalization = model.layers[0].get_weights()[0][0, 0].astype("float64"), model.layers[1]
    gamma = GAMMA if normalization.scale else np.ones(3)
    z = x @ kernel
    parts = z.reshape(-1, group * z[0].size // 3, 3)
    mean, variance = parts.mean(1, keepdims=True), parts.var(1, keepdims=True)
    std = np.sqrt(variance + normalization.epsilon)
    normal, g = (parts - mean) / std, upstream.reshape(parts.shape)
    through = gamma * (g - g.mean(1, keepdims=True) - normal * (normal * g).mean(1, keepdims=True)) / std
    momentum = normalization.momentum
    found = {"kernel": kernel - x.reshape(-1, 3).T @ through.reshape(-1, 3)}
    if normalization.scale:
        found["gamma"] = GAMMA - (normal * g).sum((0, 1))
    if normalization.center:
        found["beta"] = BETA - g.sum((0, 1))
    return found | {
        "moving_mean": (1 - momentum) * mean.mean((0, 1)),
        "moving_variance": momentum + (1 - momentum) * variance.mean((0, 1)),
    }


def step(model, x, upstream):
    model.compile(SGD(1.0), lambda y, p: keras.ops.sum(y * p), jit_compile=False)
    model.train_on_batch(x.astype("float32"), upstream.astype("float32"))
    return {v.name: np.squeeze(keras.ops.convert_to_numpy(v)) for v in model.variables[:5] if v.name in WHAT}


WHAT = ("kernel", "gamma", "beta", "moving_mean", "moving_variance")


@pytest.mark.parametrize("images, group", [(6, None), (1, None), (6, 2), (6, 1), (6, 6)])
@pytest.mark.parametrize(
    "change", [{}, {"scale": False}, {"center": False}, {"momentum": 0.5, "epsilon": 1e-5}], ids=str
)
def test_a_step_is_the_one_computed_by_hand(images, group, change):
    model, rng = one_layer(**change), np.random.default_rng(0)
    x, upstream = rng.normal(2, 3, (images, 4, 5, 3)), rng.normal(size=(images, 4, 5, 3))
    assert kp.fuse_batch_norm(model, group) == (1 if FUSES or group else 0)
    expected = step_by_hand(model, x, upstream, group or images)
    found = step(model, x, upstream)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=2e-4 if name == "kernel" else 2e-5, err_msg=name)


def test_a_single_value_for_each_channel_has_no_variance():
    model = one_layer((1, 1, 3))
    kp.fuse_batch_norm(model)
    found = step(model, np.ones((1, 1, 1, 3)), np.ones((1, 1, 1, 3)))
    np.testing.assert_allclose(found["beta"], BETA - 1, atol=1e-6)
    np.testing.assert_allclose(found["moving_variance"], [0.99] * 3, atol=1e-6)


@pytest.mark.parametrize("group", [None, 2])
@pytest.mark.skipif(BACKEND == "tensorflow", reason="its convs on CPUs have the channels last")
def test_channels_first(channels_first, group):
    model, rng = one_layer((3, 4, 5)), np.random.default_rng(0)
    x, upstream = rng.normal(2, 3, (6, 4, 5, 3)), rng.normal(size=(6, 4, 5, 3))
    kp.fuse_batch_norm(model, group)
    expected = step_by_hand(model, x, upstream, group or 6)
    found = step(model, np.moveaxis(x, -1, 1), np.moveaxis(upstream, -1, 1))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=2e-4, err_msg=name)


def trained(fuse, steps=10, images=8, policy="float32", frozen=()):
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    model = build(NetworkConfig((2, 2), (4, 6)), (8, 8, 3))
    keras.config.set_dtype_policy(before)
    for name in frozen:
        model.get_layer(name).trainable = False
    if fuse:
        kp.fuse_batch_norm(model)
    start = weights_of(model)
    model.compile(keras.optimizers.SGD(0.01, 0.9), keras.losses.CategoricalCrossentropy(from_logits=True))
    x, y = images_like((8, 8, 3), images * steps), np.eye(5, dtype="float32")[np.arange(images * steps) % 5]
    model.fit(x, y, batch_size=images, shuffle=False, verbose=0)
    return model, start


def largest_error(found, expected):
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, expected, strict=True))


@on_fused_backends
@pytest.mark.parametrize("images, frozen", [(8, ()), (1, ()), (8, ("stage1_unit2_bn1", "stage2_unit1_bn2"))])
def test_ten_steps_end_where_those_of_keras_do(images, frozen):
    fused, start = trained(True, images=images, frozen=frozen)
    plain, _ = trained(False, images=images, frozen=frozen)
    assert largest_error(fused.get_weights(), plain.get_weights()) < 1e-5
    for name, value in weights_of(fused).items():
        assert np.array_equal(value, start[name]) == (name.partition("/")[0] in frozen), name


@on_fused_backends
@pytest.mark.parametrize("policy", ["mixed_bfloat16", slow("mixed_float16")])
def test_mixed_precision_keeps_statistics_and_weights_in_float32(policy):
    """A step in half precision lies as far from the exact one as Keras's own step does."""
    exact = trained(False, 1)[0].get_weights()
    fused, plain = (trained(fuse, 1, policy=policy)[0].get_weights() for fuse in (True, False))
    assert {w.dtype for w in fused} == {np.dtype("float32")}
    assert 1e-6 < largest_error(fused, exact) < 2 * largest_error(plain, exact)


def test_float64_stays_float64():
    if BACKEND == "jax":
        pytest.skip("wants jax_enable_x64")
    normalization = keras.layers.BatchNormalization(dtype="float64")
    model = keras.Sequential([keras.Input((4, 5, 3), dtype="float64"), normalization])
    kp.fuse_batch_norm(model)
    x = np.random.default_rng(0).normal(size=(3, 4, 5, 3))
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x, training=True)), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="looks into TensorFlow's graph")
def test_the_kernel_runs_while_it_trains_and_only_then():
    import tensorflow as tf

    model = build(NetworkConfig((2,), (4,)), (8, 8, 3))
    batch_norms = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)
    assert kp.fuse_batch_norm(model) == batch_norms == 5

    def kernels(training):
        call = tf.function(lambda x: model(x, training=training)).get_concrete_function(tf.zeros((2, 8, 8, 3)))
        return sum(op.type == "FusedBatchNormV3" for op in call.graph.get_operations())

    assert (kernels(True), kernels(False)) == (batch_norms, 0)


def test_the_model_stays_one_of_keras(tmp_path):
    model = build(NetworkConfig((2, 2), (4, 6)), (8, 8, 3))
    config = model.get_config()
    assert kp.fuse_batch_norm(model, 2) == 9 and model.get_config() == config
    model.save(tmp_path / "model.keras")
    loaded, images = keras.saving.load_model(tmp_path / "model.keras"), images_like((8, 8, 3))
    for layer in loaded.layers:
        assert type(layer).__module__.partition(".")[0] == "keras" and "call" not in vars(layer)
    np.testing.assert_allclose(outputs_of(loaded, images), outputs_of(model, images), rtol=1e-6, atol=1e-6)


class Own(keras.layers.BatchNormalization):
    pass


def test_what_cannot_be_fused_is_left_and_not_counted():
    layers = keras.layers
    shared = layers.BatchNormalization()
    inside = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(2, 1), layers.BatchNormalization()])
    inputs = keras.Input((4, 4, 2))
    x = shared(inside(shared(inputs)))
    x = layers.BatchNormalization(axis=2)(Own()(x))
    x = layers.BatchNormalization(synchronized=BACKEND == "tensorflow")(x)
    x = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    changed = [shared, inside.layers[1]]
    if BACKEND != "tensorflow":  # the others have nothing to synchronize
        changed.append(model.layers[-3])
    assert kp.fuse_batch_norm(model, 2) == len(changed)
    assert [layer for layer in (*model.layers, *inside.layers) if "call" in vars(layer)] == changed
    assert kp.fuse_batch_norm(keras.Sequential([keras.Input((3,)), layers.Dense(2)])) == 0


def test_a_second_call_takes_the_place_of_the_first():
    x, upstream = np.random.default_rng(0).normal(size=(2, 4, 4, 5, 3))
    model = one_layer()
    step(model, x, 0 * upstream)  # what was traced before does not stay
    kp.fuse_batch_norm(model, 2)
    kp.fuse_batch_norm(model)
    for v, value in zip(model.layers[1].variables, (GAMMA, BETA, np.zeros(3), np.ones(3))):
        v.assign(value)
    expected = step_by_hand(model, x, upstream, 4)
    np.testing.assert_allclose(step(model, x, upstream)["gamma"], expected["gamma"], rtol=1e-4)


@pytest.mark.parametrize("group", [0, -2, 1.5, "4", True])
def test_a_group_is_a_number_of_images(group):
    with pytest.raises(ValueError, match="`group` must be a positive integer, a number of images. Received: "):
        kp.fuse_batch_norm(one_layer(), group)


def test_a_group_divides_the_batch(tmp_path):
    model = one_layer()
    kp.fuse_batch_norm(model, 4)
    with pytest.raises(ValueError, match="`group` must divide the batch of 6 images. Received: 4"):
        model(np.zeros((6, 4, 5, 3), "float32"), training=True)
    data = {"x_train": np.zeros((12, 8, 8, 3), "uint8"), "y_train": np.arange(12) % 2}
    data |= {"x_test": data["x_train"], "y_test": data["y_train"]}
    recipe = Recipe("tiny", "a test", epochs=1, batch_size=6)
    with pytest.raises(ValueError, match="`batch_norm_group` must divide the 6 images on one device. Received: 4"):
        kp.train(NetworkConfig((1,), (4,)), data, recipe, tmp_path / "run", engine=kp.Engine(batch_norm_group=4))
    with pytest.raises(ValueError, match="'synchronized' takes the statistics of the whole batch; leave out"):
        kp.Engine(batch_norm="synchronized", batch_norm_group=4)
