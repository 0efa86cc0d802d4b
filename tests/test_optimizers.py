"""Steps of SGD and Muon against steps by hand, and singular values by NumPy."""
import keras
import numpy as np
import pytest

from keras_preact.training.optimizers import OPTIMIZERS, SGD, Muon, orthogonalized
from keras_preact.training.recipes import CHOICES


def test_a_recipe_can_name_every_optimizer():
    assert tuple(OPTIMIZERS) == CHOICES["optimizer"]


@pytest.mark.parametrize("decay", ["all", "kernels"])
def test_sgd_takes_the_coupled_l2_gradient(decay):
    rate, momentum, l2, gradients = 0.1, 0.9, 0.01, (1.0, -0.5, 0.25)
    variables = [keras.Variable([2.0], name="kernel"), keras.Variable([2.0], name="gamma")]
    optimizer = SGD(rate, momentum, nesterov=True, l2=l2, decay=decay)
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor([gradient])] * 2, variables)
    for variable, factor in zip(variables, (l2, l2 if decay == "all" else 0.0)):
        w, v = 2.0, 0.0
        for gradient in gradients:
            g = gradient + factor * w
            v = momentum * v - rate * g
            w += momentum * v - rate * g
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), w, rtol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a fault of TensorFlow's graphs")
def test_gradients_are_those_of_the_weights_before_the_step():
    """Without a barrier the gradient of the kernel took the gamma after the step, in a quarter of the runs."""
    x, upstream = np.random.default_rng(0).normal(size=(2, 6, 4, 5, 3)).astype("float32")
    kernels = []
    for eagerly in (True, *[False] * 9):
        conv = keras.layers.Conv2D(3, 1, use_bias=False, kernel_initializer=keras.initializers.RandomNormal(seed=1))
        model = keras.Sequential([keras.Input((4, 5, 3)), conv, keras.layers.BatchNormalization()])
        model.compile(SGD(1.0), lambda y, p: keras.ops.sum(y * p), jit_compile=False, run_eagerly=eagerly)
        model.train_on_batch(x, upstream)
        kernels.append(conv.get_weights()[0])
    for kernel in kernels[1:]:
        np.testing.assert_allclose(kernel, kernels[0], rtol=1e-3, atol=1e-2)


def test_the_l2_gradient_acts_in_fit():
    """With a loss of zero gradient the weights shrink by l2 alone: w (1 - rate * l2), twice."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(SGD(0.5, l2=0.1), lambda y, p: 0.0 * p, jit_compile=False)
    model.fit(np.ones((2, 2)), np.ones((2, 1)), batch_size=1, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], np.full((2, 1), 0.95**2), rtol=1e-6)


def by_singular_values(matrix):
    """The iteration acts on each singular value by itself: s <- 3.4445 s - 4.775 s^3 + 2.0315 s^5, five times."""
    u, s, v = np.linalg.svd(matrix.astype("float64"), full_matrices=False)
    s /= np.sqrt(np.sum(s**2, -1, keepdims=True))
    for _ in range(5):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    return u * s[..., None, :] @ v, s


@pytest.mark.parametrize("shape", [(27, 16), (16, 64), (8, 8), (3, 18, 4)])
def test_orthogonalized_brings_singular_values_near_1(shape):
    matrix = np.random.default_rng(0).normal(size=shape).astype("float32")
    expected, values = by_singular_values(matrix)
    assert 0.6 < values.min() and values.max() < 1.3
    np.testing.assert_allclose(orthogonalized(keras.ops.convert_to_tensor(matrix)), expected, atol=2e-5)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(3, 3, 4, 8), (1, 1, 16, 4), (2, 3, 3, 4, 8)])
def test_muon_steps_kernels_of_convs_by_orthogonal_matrices(shape, nesterov):
    rng = np.random.default_rng(1)
    start, *gradients = rng.normal(size=(3, *shape)).astype("float32")
    kernel = keras.Variable(start, name="kernel")
    optimizer = Muon(0.02, 0.9, nesterov, l2=0.1, decay="kernels")
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [kernel])
    w, m = start, 0.0
    for g in gradients:
        m = 0.9 * m + g
        direction = (g + 0.9 * m if nesterov else m).reshape(*shape[:-4], -1, shape[-1])
        step = by_singular_values(direction)[0].reshape(shape)
        w = w - 0.02 * (0.2 * np.sqrt(max(direction.shape[-2:])) * step + 0.1 * w)
    np.testing.assert_allclose(kernel, w, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name, shape", [("gamma", (4,)), ("kernel", (8, 4)), ("bias", (4,))])
def test_muon_leaves_other_variables_to_sgd_at_ten_times_the_rate(name, shape):
    start, *gradients = np.random.default_rng(2).normal(size=(4, *shape)).astype("float32")
    found = []
    for optimizer in (Muon(0.02, 0.9, True, l2=0.1), SGD(0.2, 0.9, True)):
        variable = keras.Variable(start, name=name)
        for gradient in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        found.append(keras.ops.convert_to_numpy(variable))
    np.testing.assert_allclose(*found, rtol=1e-5)
