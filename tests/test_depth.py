"""The deepest networks of the paper live with Python's default recursion limit, from building to serving."""
import numpy as np
import pytest
from helpers import relative_error, run_python

pytestmark = pytest.mark.slow

DEEPEST = {"1001": "NetworkConfig.cifar(1001, 'bottleneck')", "1202": "NetworkConfig.cifar(1202)"}

BUILD = """
import sys
import keras, numpy as np
from keras_preact.networks.building import ResNet
from keras_preact.networks.config import NetworkConfig

folder, config, export = sys.argv[1:]
model = ResNet(eval(config), input_shape=(8, 8, 3), classifier_activation=None)
for layer in model.layers:
    if layer.name.endswith("_bn2"):  # without batch statistics every unit would double the signal
        layer.gamma.assign(layer.gamma * 0.1)
images = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("float32")
clone = keras.models.clone_model(model)
clone.set_weights(model.get_weights())
np.savez(f"{folder}/expected.npz", images=images, outputs=model(images, training=False),
         clone=clone(images, training=False))
model.save(f"{folder}/model.keras")
if export == "export":
    model.export(f"{folder}/model", verbose=False)
assert sys.getrecursionlimit() == 1000
"""

LOAD = """
import sys
sys.modules["keras_preact"] = None
import keras, numpy as np

folder, = sys.argv[1:]
try:
    import keras_preact
    raise SystemExit("keras_preact can be imported")
except ImportError:
    pass
model = keras.saving.load_model(f"{folder}/model.keras")
np.save(f"{folder}/loaded.npy", model(np.load(f"{folder}/expected.npz")["images"], training=False))
assert sys.getrecursionlimit() == 1000
"""

SERVE = """
import sys
for name in "keras_preact", "keras":
    sys.modules[name] = None
import numpy as np, tensorflow as tf

tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # takes longer than all the rest
folder, = sys.argv[1:]
model = tf.saved_model.load(f"{folder}/model")
np.save(f"{folder}/served.npy", model.serve(np.load(f"{folder}/expected.npz")["images"]))
assert sys.getrecursionlimit() == 1000
"""


@pytest.fixture(scope="module", params=DEEPEST)
def deep(request, tmp_path_factory):
    """A folder with a deep network as Keras file and SavedModel, an image and its outputs."""
    folder = tmp_path_factory.mktemp(request.param)
    run_python(BUILD, folder, DEEPEST[request.param], "export" if request.param == "1001" else "", cwd=folder)
    return folder


@pytest.mark.parametrize("config", [
    "NetworkConfig.cifar(1202, order='original')",
    "NetworkConfig.cifar(1202, join=('shortcut_gate', -6))",
    "NetworkConfig.cifar(1001, 'bottleneck', order='bn_after_addition', join=('scaled', 0.5, 0.5))",
    "NetworkConfig.cifar(1001, 'bottleneck', order='original', shortcut='project_always')",
    "NetworkConfig.cifar(542, 'bottleneck', join=('scaled', 0, 1))",
])
def test_networks_with_more_layers_on_their_shortcuts_build_too(config, tmp_path):
    run_python("""
import sys
from keras_preact.networks.building import ResNet
from keras_preact.networks.config import NetworkConfig
ResNet(eval(sys.argv[1]), input_shape=(8, 8, 3))
assert sys.getrecursionlimit() == 1000
""", config, cwd=tmp_path)


def test_weights_of_the_original_1202_load_behind_a_layer_of_the_users_own(tmp_path):
    run_python("""
import keras, numpy as np, keras_preact as kp

model = kp.ResNet1202(input_shape=(8, 8, 3))
model.save_weights("a.weights.h5")
behind = kp.ResNet1202(weights="a.weights.h5", input_tensor=keras.layers.Rescaling(1.0)(keras.Input((8, 8, 3))))
for one, other in zip(model.get_weights(), behind.get_weights(), strict=True):
    np.testing.assert_array_equal(one, other)
""", cwd=tmp_path)


def expected(folder):
    arrays = np.load(folder / "expected.npz")
    assert 0.01 < np.abs(arrays["outputs"]).max() < 100
    return arrays["outputs"]


def test_a_clone_is_the_same(deep):
    assert relative_error(np.load(deep / "expected.npz")["clone"], expected(deep)) < 1e-4


def test_it_opens_with_keras_alone(deep):
    run_python(LOAD, deep, cwd=deep)
    assert relative_error(np.load(deep / "loaded.npy"), expected(deep)) < 1e-4


def test_it_is_served_by_tensorflow_alone(deep):
    if not (deep / "model").exists():
        pytest.skip("one exported network is enough")
    run_python(SERVE, deep, cwd=deep)
    assert relative_error(np.load(deep / "served.npy"), expected(deep)) < 1e-4
