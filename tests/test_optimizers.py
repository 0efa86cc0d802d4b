"""Steps of each optimizer against steps by hand, and singular values by NumPy."""
import keras
import numpy as np
import pytest

from keras_preact.training.optimizers import OPTIMIZERS, SGD, AdamW, Lamb, Muon, optimizer_of, orthogonalized
from keras_preact.training.recipes import CHOICES, Recipe


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


@pytest.mark.parametrize("name, l2", [("kernel", 0.1), ("gamma", 0.0)])
def test_adamw_decays_kernels_beside_the_moments(name, l2):
    """Loshchilov and Hutter 2019, algorithm 2, line 12: the decay does not enter the moments."""
    start, *gradients = np.random.default_rng(3).normal(size=(4, 5)).astype("float32")
    variable = keras.Variable(start, name=name)
    optimizer = AdamW(0.02, l2=0.1, decay="kernels")
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    w, m, v = start.astype("float64"), 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.02 * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7) + l2 * w)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), w, atol=1e-5)


def test_lamb_steps_as_far_as_the_norm_of_the_variable_says():
    """You et al. 2020, algorithm 2: the step has the norm of the variable times the learning rate."""
    start, *gradients = np.random.default_rng(5).normal(size=(4, 5)).astype("float32")
    variable, optimizer = keras.Variable(start, name="gamma"), Lamb(0.02, l2=0.1, decay="kernels")
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    w, m, v = start.astype("float64"), 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        r = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
        w = w - 0.02 * np.linalg.norm(w) / np.linalg.norm(r) * r
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), w, atol=1e-5)


PARTS = "stem", "stage1", "stage2", "predictions"


def of_parts():
    variables = []
    for part in PARTS:
        with keras.name_scope(f"{part}_conv"):
            variables.append(keras.Variable([1.0], name="gamma"))
    return variables


def stepped(recipe, steps, rates=0.1):
    """What each variable of `PARTS` is after so many steps of the gradient 1, two of them an epoch."""
    variables, found = of_parts(), []
    optimizer = optimizer_of(recipe, rates, PARTS, 2)
    for _ in range(steps):
        optimizer.apply([keras.ops.convert_to_tensor([1.0])] * len(PARTS), variables)
        found.append([float(variable[0]) for variable in variables])
    return found


@pytest.mark.parametrize("optimizer, step", [("sgd", 0.1), ("muon", 1.0), ("adamw", 0.1)])
def test_a_part_nearer_to_the_image_takes_smaller_steps_after_the_last_part_alone(optimizer, step):
    """Two steps an epoch; with layer_decay=0.5 the parts learn at 1/8, 1/4, 1/2 and 1 times the rate."""
    recipe = Recipe("tiny", "a test", 2, optimizer=optimizer, momentum=0.0, weight_decay=0.0, layer_decay=0.5,
                    head_epochs=1)
    alone = [[1, 1, 1, 1 - step], [1, 1, 1, 1 - 2 * step]]
    whole = [1 - step / 8, 1 - step / 4, 1 - step / 2, 1 - 3 * step]
    found = stepped(recipe, 3)
    np.testing.assert_allclose(found[:2], alone, rtol=1e-5)
    # Adam's moments have seen the gradient 1 at every step.
    np.testing.assert_allclose(found[2], whole, rtol=1e-4)


def test_without_these_fields_all_parts_take_the_same_steps():
    recipe = Recipe("tiny", "a test", 2, momentum=0.0, weight_decay=0.0)
    np.testing.assert_allclose(stepped(recipe, 2), [[0.9] * 4, [0.8] * 4], rtol=1e-6)


def test_the_head_is_trained_alone_for_as_many_epochs_with_accumulated_gradients():
    """A step is two batches: the first epoch has one."""
    recipe = Recipe("tiny", "a test", 2, momentum=0.0, weight_decay=0.0, head_epochs=1, accumulate=2)
    expected = [[1, 1, 1, 1], [1, 1, 1, 0.9], [1, 1, 1, 0.9], [0.9, 0.9, 0.9, 0.8]]
    np.testing.assert_allclose(stepped(recipe, 4), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["sgd", "muon", "adamw"])
def test_accumulated_gradients_are_the_mean_of_those_of_batches(kind):
    gradients = np.random.default_rng(4).normal(size=(4, 3, 3, 2, 2)).astype("float32")
    found = []
    for accumulate, given in ((2, gradients), (1, gradients.reshape(2, 2, 3, 3, 2, 2).mean(1))):
        kernel = keras.Variable(np.ones((3, 3, 2, 2), "float32"), name="kernel")
        optimizer = optimizer_of(Recipe("tiny", "a test", 1, optimizer=kind, accumulate=accumulate), 0.1)
        for gradient in given:
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [kernel])
        found.append(keras.ops.convert_to_numpy(kernel))
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_the_norm_of_all_gradients_is_clipped():
    """(3, 4) has the norm 5 and becomes (0.6, 0.8); (0.3, 0.4) stays."""
    variables = [keras.Variable([0.0], name="kernel"), keras.Variable([0.0], name="gamma")]
    optimizer = optimizer_of(Recipe("tiny", "a test", 1, momentum=0.0, weight_decay=0.0, clip=1.0), 1.0)
    for gradients, expected in (((3.0, 4.0), (-0.6, -0.8)), ((0.3, 0.4), (-0.9, -1.2))):
        optimizer.apply([keras.ops.convert_to_tensor([g]) for g in gradients], variables)
        np.testing.assert_allclose([float(v[0]) for v in variables], expected, rtol=1e-5)
