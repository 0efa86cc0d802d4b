"""The same weights give the same outputs on TensorFlow, JAX and PyTorch."""
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import reference
from helpers import build, config_kwargs, images_like, relative_error, run_python, tiny, weights_of

SHAPE = (33, 38, 3)
CONFIGS = {
    "basic": tiny(),
    "basic_original": tiny(order="original", shortcut="project_on_change"),
    "bottleneck": tiny(unit="bottleneck", shortcut="project_on_change"),
    "bottleneck_original": tiny(unit="bottleneck", shortcut="project_on_change", order="original"),
    "imagenet_stem": tiny(stem="conv7x7_pool", stride_on="last_unit", first_activation="unit",
                          pool_padding="minus_infinity", use_bias=True),
    "gated": tiny(join=("exclusive_gate", -6), shortcut="project_always"),
}

RUN = """
import sys
import keras, numpy as np
from helpers import outputs_of
from keras_preact.networks.building import ResNet
from keras_preact.networks.config import NetworkConfig

folder, backend, configs = sys.argv[1:]
assert keras.backend.backend() == backend
outputs = {}
for name, config in eval(configs).items():
    model = ResNet(NetworkConfig(**config), input_shape=(33, 38, 3), classes=5, classifier_activation=None)
    model.load_weights(f"{folder}/{name}.weights.h5")
    model.save_weights(f"{folder}/{backend}_{name}.weights.h5")
    outputs[name] = outputs_of(model, np.load(f"{folder}/images.npy"))
np.savez(f"{folder}/{backend}.npz", **outputs)
"""


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """A folder with the weights of every config, and the outputs that the reference finds."""
    folder = tmp_path_factory.mktemp("backends")
    images = images_like(SHAPE)
    np.save(folder / "images.npy", images)
    outputs = {}
    for name, config in CONFIGS.items():
        model = build(config, SHAPE)
        model.save_weights(folder / f"{name}.weights.h5")
        outputs[name] = reference.forward(weights_of(model), images, **config_kwargs(config))
    return folder, outputs


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_backends_agree_and_read_each_others_weights(backend, expected):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    folder, outputs = expected
    configs = {name: asdict(config) for name, config in CONFIGS.items()}
    run_python(RUN, folder, backend, configs, cwd=folder, KERAS_BACKEND=backend)
    found = np.load(folder / f"{backend}.npz")
    errors = {name: relative_error(found[name], outputs[name]) for name in CONFIGS}
    assert max(errors.values()) < 1e-4, errors
    for name, config in CONFIGS.items():
        model = build(config, SHAPE, seed=9)
        model.load_weights(folder / f"{backend}_{name}.weights.h5")
        read_back = reference.forward(weights_of(model), images_like(SHAPE), **config_kwargs(config))
        np.testing.assert_array_equal(read_back, outputs[name])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed")
@pytest.mark.parametrize("module", ["test_training", "test_looping", "test_finetuning"])
def test_training_works_on_jax_without_tensorflow(module, tmp_path):
    run_python("""
import sys

class Hide:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hide())
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-m", "not slow", sys.argv[1]]))
""", Path(__file__).parent / f"{module}.py", cwd=tmp_path, KERAS_BACKEND="jax")
