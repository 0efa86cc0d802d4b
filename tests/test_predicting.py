"""Predictors on each runtime against Keras's own predictions, and the choice among runtimes."""
import json
import threading
import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from helpers import EXAMPLES, example_images, run_python, slow

import keras_preact as kp
from keras_preact import cli
from keras_preact.exporting import predicting, runtimes

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes the files")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "keras_preact_runtimes.json"


@pytest.fixture(scope="module")
def model():
    return kp.PreActResNet20(weights="cifar10")


@pytest.fixture(scope="module")
def images(model):
    return example_images(model)


@pytest.fixture(scope="module")
def expected(model, images):
    return keras.ops.convert_to_numpy(model(kp.preprocess_input(images, model), training=False))


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """Returns the file of a format, written once."""
    folder = tmp_path_factory.mktemp("exported")

    def file(format):
        if keras.backend.backend() != "tensorflow":
            pytest.skip("TensorFlow writes the files")
        for package in (*runtimes.RUNTIMES[format].writers["tensorflow"], runtimes.RUNTIMES[format].package):
            pytest.importorskip(package)
        path = folder / f"preact{runtimes.RUNTIMES[format].suffix}"
        return path if path.exists() else kp.export(model, path, format).path

    return file


@pytest.mark.parametrize("runtime", ["keras", *(
    pytest.param(name, marks=[on_tensorflow, *marks]) for name, marks in (
        ("onnx", ()), ("litert", [pytest.mark.slow]), ("openvino", [pytest.mark.slow]))
)])
def test_every_runtime_predicts_as_keras_does(runtime, model, images, expected):
    if runtime != "keras":
        pytest.importorskip(runtimes.RUNTIMES[runtime].package)
    assert len(EXAMPLES) > 3
    with kp.predictor(model, runtime, batch_size=3) as predict:
        assert (predict.runtime, predict.labels, predict.preprocessing) == (runtime, model.labels, model.preprocessing)
        for given in (images, keras.ops.convert_to_tensor(images), EXAMPLES, map(str, EXAMPLES)):
            found = predict(given)
            assert found.dtype == "float32"
            np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_allclose(predict(EXAMPLES[1]), expected[1:2], atol=1e-5)
        assert predict(images[:0]).shape == predict([]).shape == (0, 10)
        with pytest.raises(ValueError, match=r"uint8 of shape \(n, 32, 32, 3\).*Received: float32 of shape"):
            predict(images.astype("float32"))
        with pytest.raises(ValueError, match=r"Received: uint8 of shape \(\d+, 16, 32, 3\)"):
            predict(images[:, :16])
    with pytest.raises(ValueError, match="is closed"):
        predict(images)


@pytest.mark.parametrize("format", ["onnx", slow("litert")])
def test_a_file_is_run_as_it_is(format, exported, images, expected):
    predict = kp.predictor(exported(format))
    np.testing.assert_allclose(predict(images), expected, atol=1e-5)
    assert (predict.runtime, predict.labels[3], predict.preprocessing.size) == (format, "cat", (32, 32))


@pytest.mark.slow
def test_threads_share_a_predictor(exported, images, expected):
    predict, results = kp.predictor(exported("litert")), {}

    def work(name):
        results[name] = [predict(images[:1 + name % 3]) for _ in range(50)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, found in results.items():
        np.testing.assert_allclose(found, [expected[:1 + name % 3]] * 50, atol=1e-5)
    assert len(results) == 8


def test_the_error_is_that_of_the_file(exported, model, samples):
    images, labels = samples["cifar10"]
    images, labels = images[:200], labels[:200]
    outputs = keras.ops.convert_to_numpy(model(kp.preprocess_input(images, model), training=False))
    wrong = int((outputs.argmax(1) != labels).sum())
    report = kp.evaluate(kp.predictor(exported("onnx")), (images, labels))
    assert (report.wrong, report.images) == (wrong, 200) and 0 < wrong < 40
    other = kp.Preprocessing((0.5,) * 3, (0.5,) * 3, (32, 32))
    with pytest.raises(ValueError, match="`preprocessing` is inside a Predictor: leave it out"):
        kp.evaluate(kp.predictor(exported("onnx")), (images, labels), other)


def test_commands_take_a_runtime_and_a_file(exported, tmp_path, capsys, samples):
    cat = str(EXAMPLES[2])
    assert cli.main(["classify", cat]) == 0
    line, _ = capsys.readouterr()
    for arguments in (["--runtime", "keras"], ["--model", str(exported("onnx"))]):
        assert cli.main(["classify", cat, *arguments]) == 0
        out, err = capsys.readouterr()
        assert out == line and "Predictor(runtime=" in err
    images, labels = samples["cifar10"]
    np.savez(tmp_path / "data.npz", x_test=images[:100], y_test=labels[:100])
    errors = []
    for network in (["PreActResNet20", "--weights", "cifar10"], [str(exported("onnx"))]):
        assert cli.main(["evaluate", *network, "--data", str(tmp_path / "data.npz"), "--json"]) == 0
        errors.append(json.loads(capsys.readouterr().out)["wrong"])
    assert errors[0] == errors[1] > 0


@pytest.mark.slow
def test_a_file_needs_no_tensorflow(exported, images, expected, tmp_path):
    np.save(tmp_path / "images.npy", images)
    run_python(
        "import sys\n"
        "sys.modules['tensorflow'] = None  # importing it fails\n"
        "import numpy as np, keras_preact as kp\n"
        f"np.save('found.npy', kp.predictor({str(exported('onnx'))!r})(np.load('images.npy')))\n",
        cwd=tmp_path, KERAS_BACKEND="numpy",
    )
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)


def pretend(monkeypatch, model, seconds):
    """Has runtimes take so many seconds a batch; returns the names of those that were opened and of those that ran."""
    opened, ran = [], []

    def of(name):
        def run(images):
            ran.append((name, len(images)))
            time.sleep(seconds[name])
            return np.zeros((len(images), 10), "float32")

        return run

    def open_(ready, name, wanted):
        opened.append(name)
        if seconds[name] is None:
            raise RuntimeError("has no such operation")
        return of(name)

    monkeypatch.setattr(predicting, "_is_installed", lambda name: name in seconds)
    monkeypatch.setattr(predicting, "_opened", open_)
    monkeypatch.setattr(predicting, "SECONDS", 0.02)
    versions = SimpleNamespace(import_module=lambda name: SimpleNamespace(__version__="1"))
    monkeypatch.setattr(predicting, "importlib", versions)
    return opened, ran


def test_the_fastest_is_taken_and_remembered(model, home, monkeypatch):
    opened, ran = pretend(monkeypatch, model, {"keras": 0.02, "onnx": 0.001, "litert": None})
    predict = kp.predictor(model, batch_size=7)
    assert predict.runtime == "onnx" and opened == ["keras", "onnx", "litert"]
    assert predict.failures == {"litert": "RuntimeError: has no such operation"}
    assert predict.rates["keras"] < 7 / 0.02 < 1000 < predict.rates["onnx"] < 7 / 0.001
    assert {count for _, count in ran} == {7}
    assert repr(predict).startswith("Predictor(runtime='onnx', images/s: keras 3")
    opened.clear(), ran.clear()
    again = kp.predictor(model, batch_size=7)
    assert (again.runtime, again.rates, opened, ran) == ("onnx", predict.rates, ["onnx"], [])
    # Other batches, and what is damaged, are measured anew; what others measured stays.
    kp.predictor(model, batch_size=8)
    assert opened[1:] == ["keras", "onnx", "litert"] and len(json.loads(home.read_text())) == 2
    keys = json.loads(home.read_text())
    for damaged in ("{", "[]", *(json.dumps(dict.fromkeys(keys, rates)) for rates in (3, {}, {"cuda": 1}))):
        home.write_text(damaged)
        opened.clear()
        assert kp.predictor(model, batch_size=7).runtime == "onnx" and opened == ["keras", "onnx", "litert"]


def test_what_no_runtime_can_do_is_told_of_each(model, monkeypatch):
    pretend(monkeypatch, model, {"keras": None, "onnx": None})
    with pytest.raises(ValueError, match="can do this. keras: RuntimeError: has no such operation; onnx: Runtime"):
        kp.predictor(model)


def test_a_model_without_labels_is_told_once(monkeypatch):
    model = kp.PreActResNet20(input_shape=(8, 8, 3))
    model.preprocessing = kp.Preprocessing((0.5,) * 3, (0.5,) * 3, (8, 8))
    with pytest.raises(ValueError, match="^preactresnet20 does not name its classes: give `labels`"):
        kp.predictor(model)


@on_tensorflow
def test_a_runtime_that_computes_something_else_is_refused(model, monkeypatch):
    pytest.importorskip("onnxruntime")
    right, asked = runtimes.RUNTIMES["onnx"], []

    def shifted(path, *others):
        asked.append(others)
        run = right.open(path, *others)
        return lambda images: run(np.flip(images, 3))

    monkeypatch.setitem(runtimes.RUNTIMES, "onnx", right._replace(open=shifted))
    with pytest.raises(ValueError, match="What onnx computes differs from the Keras model by"):
        kp.predictor(model, "onnx", threads=3)
    assert asked == [(3, "float32")]


@pytest.mark.parametrize("arguments, message", [
    ({"runtime": "onyx"}, "`runtime` must be one of 'auto', 'keras'.*did you mean 'onnx'"),
    ({"batch_size": 0}, "`batch_size` must be a positive integer. Received: 0"),
    ({"threads": 1.5}, "`threads` must be a positive integer. Received: 1.5"),
    ({"precision": "float16"}, "`precision` must be one of 'float32', 'bfloat16'"),
    ({"runtime": "onnx", "precision": "bfloat16"}, "must be one of openvino. Received: onnx"),
    ({"runtime": "keras", "threads": 2}, "must be one of onnx, litert, openvino. Received: keras"),
    ({"model": "preact.pb"},
     "must be a Keras model, or a file that ends in .onnx, .tflite, .xml, .pt2. Received: preact.pb"),
    ({"model": "preact.onnx", "runtime": "litert"}, "ends in .onnx is not for runtime='litert'"),
    ({"model": "gs://bucket/preact.onnx"}, "mount gs:// as a folder"),
])
def test_wrong_arguments_say_what_is_right(arguments, message, model):
    with pytest.raises(ValueError, match=message):
        kp.predictor(**{"model": model} | arguments)


@pytest.mark.parametrize("suffix, package, called", [
    (".onnx", "onnxruntime", "ONNX Runtime"), (".tflite", "ai_edge_litert", "LiteRT"),
    (".xml", "openvino", "OpenVINO"), (".pt2", "torch", "PyTorch"),
])
def test_a_file_that_no_runtime_opens_is_named(suffix, package, called, tmp_path, capsys):
    pytest.importorskip(package)
    path = tmp_path / f"preact{suffix}"
    told = {"preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3, "size": [8, 8]}, "labels": ["cat"]}
    (tmp_path / f"preact{suffix}.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=f"{path.name} does not exist"):
        kp.predictor(path)
    for content, word in ((b"hello" * 9, "damaged: "), (b"version https://git-lfs", "it is a Git LFS pointer")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"cannot be read as a file of a network by {called}.* {word}") as error:
            kp.predictor(path)
        assert str(error.value).startswith(str(path))
    assert cli.main(["classify", str(EXAMPLES[0]), "--model", str(path)]) == 2
    assert "Git LFS pointer" in capsys.readouterr().err


def test_labels_that_are_not_those_of_the_outputs_are_refused(exported, tmp_path):
    path, file = tmp_path / "preact.onnx", exported("onnx")
    path.symlink_to(file)
    told = json.loads(file.with_name("preact.onnx.json").read_text())
    for change, pattern in (
        ({"labels": ["cat"]}, "json must name the classes of preact.onnx, which has 10 outputs. Received: 1 labels"),
        ({"labels": [1] * 10}, "preact.onnx.json is not what keras_preact writes"),
        ({"preprocessing": told["preprocessing"] | {"size": [0, 32]}}, "preact.onnx.json is not what"),
    ):
        (tmp_path / "preact.onnx.json").write_text(json.dumps(told | change))
        with pytest.raises(ValueError, match=pattern):
            kp.predictor(path)


def test_a_file_that_lacks_what_goes_with_it(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "preact.onnx").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="preact.onnx.json"):
        kp.predictor(tmp_path / "preact.onnx")
    for text in ("{", "[]", "{}", '{"preprocessing": {}, "labels": []}', '{"preprocessing": 1, "labels": 2}'):
        (tmp_path / "preact.onnx.json").write_text(text)
        with pytest.raises(ValueError, match="preact.onnx.json is not what keras_preact writes beside preact.onnx"):
            kp.predictor(tmp_path / "preact.onnx")
