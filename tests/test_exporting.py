"""ONNX, LiteRT and OpenVINO against the Keras model, each run by its own runtime."""
import dataclasses
import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import EXAMPLES, HALF, LABELS, build, example_images, run_python, slow, tiny

import keras_preact as kp
from keras_preact.exporting import files, preparation, runtimes
from keras_preact.networks.building import ResNet

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="networks are exported by TensorFlow")

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "litert_int8": ".tflite", "openvino": ".xml"}


@pytest.fixture(scope="module")
def model():
    return kp.PreActResNet20(weights="cifar10")


@pytest.fixture(scope="module")
def images(model):
    return example_images(model)


def run_onnx(path, images):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path)
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", 32, 32, 3])
    (wanted,) = session.get_outputs()
    assert (wanted.name, wanted.type, wanted.shape) == ("probabilities", "tensor(float)", ["batch", 10])
    told = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert told["labels"][3] == "cat" and told["preprocessing"]["size"] == [32, 32]
    return session.run(None, {"images": images})[0]


def run_litert(path, images):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(str(path))
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert interpreter.get_signature_list()["serving_default"]["outputs"] == ["probabilities"]
    assert given["dtype"] is np.uint8 and given["shape_signature"].tolist() == [-1, 32, 32, 3]
    interpreter.allocate_tensors()  # for one image at a time, as it comes
    outputs = []
    for image in images:
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(wanted["index"])[0])
    return np.stack(outputs)


def run_openvino(path, images):
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(path)
    assert (model.inputs[0].any_name, model.outputs[0].any_name) == ("images", "probabilities")
    assert json.loads(model.get_rt_info(["keras_preact", "labels"]).value)[3] == "cat"
    return openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)[0]


RUN = {"onnx": run_onnx, "litert": run_litert, "litert_int8": run_litert, "openvino": run_openvino}


@pytest.fixture
def missing():
    """Skips where the packages of a format are not installed."""
    def skip(format):
        runtime = runtimes.RUNTIMES[files.FORMATS[format]]
        for package in (*runtime.writers["tensorflow"], runtime.package):
            pytest.importorskip(package, reason=f"format {format!r} needs {package}")

    return skip


@pytest.mark.parametrize("format", ["onnx", "litert", slow("openvino")])
def test_other_runtimes_agree_with_keras_on_real_images(format, model, images, tmp_path, missing):
    missing(format)
    target = tmp_path / "new" / f"preact{SUFFIXES[format]}"
    exported = kp.export(model, target, format)
    expected = model.predict_on_batch(kp.preprocess_input(images))
    np.testing.assert_allclose(RUN[format](target, images), expected, atol=1e-5)
    assert exported.format == format and exported.path == target and 0 < exported.disagreement < 1e-5
    written = {file.name: file for file in target.parent.iterdir()}
    weights = {"preact.bin"} if format == "openvino" else set()
    assert set(written) == {target.name, f"{target.name}.json"} | weights
    beside = json.loads(written[f"{target.name}.json"].read_text())
    assert beside["labels"] == list(model.labels) and beside["format"] == format
    assert beside["input"] == {
        "name": "images", "type": "uint8", "shape": ["batch", 32, 32, 3], "normalization": "inside",
    }
    assert beside["output"] == {"name": "probabilities", "type": "float32", "shape": ["batch", 10]}
    assert beside["versions"]["keras"] == keras.__version__ and beside["disagreement"] == exported.disagreement
    assert kp.Preprocessing(**beside["preprocessing"]) == model.preprocessing
    assert exported.size == sum(written[name].stat().st_size for name in {target.name} | weights)


@pytest.mark.slow
def test_a_wrong_mean_is_seen_where_all_probabilities_are_0_or_1(tmp_path, missing, monkeypatch):
    """With a head sixty times as large a shift of the mean by 0.002 changes no probability by 1e-5."""
    missing("openvino")
    certain = kp.PreActResNet20(weights="cifar10")
    kernel = certain.get_layer("predictions").kernel
    kernel.assign(60 * kernel)
    exported = kp.export(certain, tmp_path / "right.xml", "openvino")
    assert exported.disagreement < 1e-5 and 0 < exported.logarithms < 1e-4
    of_pixels = files.of_pixels

    def shifted(ready):
        mean = tuple(value + 0.002 for value in ready.preprocessing.mean)
        return of_pixels(dataclasses.replace(ready, preprocessing=dataclasses.replace(ready.preprocessing, mean=mean)))

    monkeypatch.setattr(files, "of_pixels", shifted)
    with pytest.raises(ValueError, match="from the Keras model by .* in the logarithms of its probab"):
        kp.export(certain, tmp_path / "wrong.xml", "openvino")
    assert not (tmp_path / "wrong.xml").exists()


def test_differences_by_hand():
    """Of the probabilities 1e-20 and 1e-10 the logarithms differ by 10 of 20; features by 0.5 of 4."""
    found, expected = ({"probabilities": np.array([[1, p]])} for p in (1e-10, 1e-20))
    assert preparation.differences(found, expected) == pytest.approx((1e-10, 0.5))
    assert preparation.differences(expected, found) == pytest.approx((1e-10, 1.0))
    assert preparation.differences({"probabilities": [[1.0, 0.0]]}, {"probabilities": np.array([[1, 1e-38]])})[1] == 0
    assert preparation.differences({"features": [[4.5, 0]]}, {"features": np.array([[4, 0]])}) == (0.125, 0)


@pytest.mark.slow
def test_eight_bits_are_a_third_of_the_size_and_classify_alike(model, images, tmp_path, missing):
    missing("litert_int8")
    whole = kp.export(model, tmp_path / "preact.tflite", "litert")
    exported = kp.export(model, tmp_path / "int8.tflite", "litert_int8", calibration=images)
    assert exported.size < whole.size / 3
    expected = model.predict_on_batch(kp.preprocess_input(images))
    found = run_litert(exported.path, images)
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert 1e-5 < np.abs(found - expected).max() < 0.1
    assert exported.disagreement == pytest.approx(np.abs(found - expected).max(), abs=1e-2)


@pytest.mark.slow
def test_what_is_there_already_stays(model, tmp_path, missing):
    missing("openvino")
    for name in ("preact.xml", "preact.bin", "preact.xml.json"):
        file = tmp_path / name
        file.write_text("mine")
        with pytest.raises(ValueError, match=f"{name} exists already: give another path"):
            kp.export(model, tmp_path / "preact.xml", "openvino")
        assert file.read_text() == "mine" and list(tmp_path.iterdir()) == [file]
        file.unlink()
    (tmp_path / "preact.bin").write_text("mine")
    kp.export(model, tmp_path / "preact.xml", "openvino", overwrite=True)
    assert (tmp_path / "preact.bin").stat().st_size > 1_000_000


def test_a_file_that_computes_something_else_is_not_left(model, tmp_path, monkeypatch, missing):
    missing("onnx")
    right = preparation.normalize
    monkeypatch.setattr(preparation, "normalize", lambda *arguments: right(*arguments) + 1e-2)
    with pytest.raises(ValueError, match="What onnx computes differs from the Keras model by"):
        kp.export(model, tmp_path / "new" / "preact.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments, message", [
    (("preact", "onx"), "`format` must be one of 'savedmodel', 'onnx'.*did you mean 'onnx'"),
    (("preact.pb", "onnx"), "`path` of format='onnx' must end in .onnx. Received: .*preact.pb"),
    (("a.tflite", "litert_int8"), "needs `calibration`: some hundred uint8 images"),
    (("a.tflite", "litert", None, None, 2), "`version` is for format='savedmodel'. Received: 2"),
    (("a.tflite", "litert", None, None, None, [1]), "`calibration` is for format='litert_int8'. Received: "),
    (("a", "savedmodel", None, None, None, [1]), "`calibration` is for format='litert_int8'. Received: "),
    (("a.tflite", "litert_int8", None, None, None, np.zeros((4, 8, 8, 3), "uint8")),
     r"uint8 images of shape \(n, 32, 32, 3\).*Received: uint8 of shape \(4, 8, 8, 3\)"),
])
def test_wrong_arguments_say_what_is_right(arguments, message, model, tmp_path, missing):
    if arguments[1] in files.FORMATS:
        missing(arguments[1])
    with pytest.raises(ValueError, match=message):
        kp.export(model, tmp_path / arguments[0], *arguments[1:])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["savedmodel", "onnx"])
def test_a_path_is_utf_8(format, model, tmp_path, missing):
    """As Python reads the name "é" where the locale knows ASCII alone."""
    if format != "savedmodel":
        missing(format)
    name = os.fsencode("\u00e9.onnx").decode("ascii", "surrogateescape")
    with pytest.raises(ValueError, match=r"`path` must be UTF-8. Received: b'.*xc3.*xa9.onnx'; .* set PYTHONUTF8=1"):
        kp.export(model, tmp_path / name, format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format, packages, extra", [
    ("onnx", ("tf2onnx", "onnxruntime"), "onnx"), ("litert_int8", ("ai_edge_litert",), "litert"),
    ("openvino", ("openvino",), "openvino"),
])
def test_a_missing_package_names_the_extra(format, packages, extra, model, tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf"needs {' and '.join(packages)}.*pip install 'keras_preact\[{extra}\]'"):
        kp.export(model, tmp_path / "a", format)


@pytest.mark.parametrize("format", ["onnx", slow("litert"), slow("openvino")])
def test_networks_of_channels_first_take_images_whose_channels_come_last(format, channels_first, tmp_path, missing):
    missing(format)
    model = build(tiny(shortcut="zero_pad"), (3, 16, 16))
    exported = kp.export(
        model, tmp_path / f"a{SUFFIXES[format]}", format, preprocessing=HALF, labels=LABELS, activation="softmax"
    )
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), "uint8")
    logits = np.asarray(model(np.moveaxis(images / 127.5 - 1, 3, 1).astype("float32")))  # as HALF says
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(kp.predictor(exported.path)(images), expected, atol=1e-5)


@pytest.mark.parametrize("format", ["onnx", slow("litert"), slow("openvino")])
def test_augmentation_is_left_out(format, model, images, tmp_path, missing):
    missing(format)
    augmented = keras.Sequential([
        keras.Input((32, 32, 3)), keras.layers.RandomFlip(), keras.layers.RandomRotation(0.2),
        keras.layers.GaussianNoise(0.5), model,
    ])
    augmented.preprocessing, augmented.labels = model.preprocessing, model.labels
    target = tmp_path / f"preact{SUFFIXES[format]}"
    kp.export(augmented, target, format)
    expected = model.predict_on_batch(kp.preprocess_input(images))
    for _ in range(2):
        np.testing.assert_allclose(RUN[format](target, images), expected, atol=1e-5)


def test_values_that_are_no_numbers_are_found_before_the_long_work(tmp_path, missing, monkeypatch):
    missing("onnx")
    model = kp.PreActResNet20(weights="cifar10")
    model.get_layer("predictions").kernel.assign(np.nan * model.get_layer("predictions").kernel)
    monkeypatch.setattr(files, "write", None)
    with pytest.raises(ValueError, match="gives values that are not finite"):
        kp.export(model, tmp_path / "a.onnx", "onnx")


def test_networks_that_these_formats_cannot_hold(tmp_path, dtype_policy, missing):
    missing("onnx")
    known = {"preprocessing": HALF, "labels": LABELS}
    with pytest.raises(ValueError, match="ends without a classifier"):
        kp.export(ResNet(tiny(), include_top=False), tmp_path / "a.onnx", "onnx", **known)
    dtype_policy("mixed_bfloat16")
    with pytest.raises(ValueError, match="is of networks in float32.*Received: mixed_bfloat16"):
        kp.export(ResNet(tiny(), input_shape=(16, 16, 3), classes=5), tmp_path / "a.onnx", "onnx", **known)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.slow
def test_other_backends_are_told_what_to_do(backend, tmp_path):
    pytest.importorskip(backend)
    out = run_python(
        "import keras_preact as kp\n"
        "try: kp.export(kp.PreActResNet20(weights='cifar10'), 'models/preact')\n"
        "except ValueError as error: print(error)",
        cwd=tmp_path, KERAS_BACKEND=backend,
    )
    assert f"set KERAS_BACKEND=tensorflow. Received: {backend}" in out and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_onnx_is_written_without_tensorflow(model, images, tmp_path):
    """By Keras on PyTorch, where TensorFlow cannot be imported."""
    for package in ("torch", "onnxscript"):
        pytest.importorskip(package)
    out = run_python("""
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    def find_spec(name, path=None, target=None):
        return None if name.split(".")[0] in ("tensorflow", "tf2onnx") else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
import keras, keras_preact as kp
for data_format in "channels_last", "channels_first":
    keras.config.set_image_data_format(data_format)
    model = kp.PreActResNet20(weights="cifar10")
    print(kp.export(model, f"{data_format}.onnx", "onnx").disagreement)
try: kp.export(model, "preact.tflite", "litert")
except ValueError as error: print(error)
""", cwd=tmp_path, KERAS_BACKEND="torch")
    *disagreements, refused = out.splitlines()
    assert "is written by Keras on tensorflow; weights" in refused and len(list(tmp_path.iterdir())) == 4
    expected = model.predict_on_batch(kp.preprocess_input(images))
    for name, disagreement in zip(("channels_last", "channels_first"), disagreements, strict=True):
        assert 0 < float(disagreement) < 1e-5
        path = tmp_path / f"{name}.onnx"
        for count in (1, len(images)):
            np.testing.assert_allclose(run_onnx(path, images[:count]), expected[:count], atol=1e-5)
        written = path.read_bytes()
        assert len(written) < 1.2e6  # the weights once: 1.09 MB
        assert str(Path(keras.__file__).parent).encode() not in written
        beside = json.loads((tmp_path / f"{name}.onnx.json").read_text())
        assert set(beside["versions"]) == {"keras_preact", "keras", "torch", "onnxscript"}


@pytest.mark.slow
def test_torch_agrees_with_keras_on_tensorflow(model, images, tmp_path):
    """Written by Keras on PyTorch in another process, read here without Keras."""
    torch = pytest.importorskip("torch")
    shutil.copy(next(file for file in EXAMPLES if file.name.startswith("cat")), tmp_path / "cat.png")
    out = run_python("""
import keras_preact as kp
model = kp.PreActResNet20(weights="cifar10")
print(kp.export(model, "preact.pt2", "torch").disagreement)
with kp.predictor(model, "torch") as predict:
    print(predict(["cat.png"]).argmax())
print({"keras", "torch"} <= set(kp.predictor(model, batch_size=4).rates))
""", cwd=tmp_path, KERAS_BACKEND="torch", HF_HOME=str(tmp_path))
    disagreement, cat, measured = out.splitlines()
    assert 0 < float(disagreement) < 1e-5 and cat == "3" and measured == "True"
    expected = model.predict_on_batch(kp.preprocess_input(images))
    told = {"keras_preact.json": ""}
    program = torch.export.load(tmp_path / "preact.pt2", extra_files=told).module()
    for count in (1, len(images)):
        found = program(torch.from_numpy(images[:count]))["probabilities"]
        np.testing.assert_allclose(found.detach(), expected[:count], atol=1e-5)
    assert json.loads(told["keras_preact.json"])["labels"] == list(model.labels)
    beside = json.loads((tmp_path / "preact.pt2.json").read_text())
    assert beside["format"] == "torch" and beside["versions"]["torch"] == torch.__version__
    with kp.predictor(tmp_path / "preact.pt2") as predict:
        np.testing.assert_allclose(predict(images), expected, atol=1e-5)
    with pytest.raises(ValueError, match="'torch' is written by Keras on torch; .* set KERAS_BACKEND=torch. Rec"):
        kp.export(model, tmp_path / "other.pt2", "torch")
