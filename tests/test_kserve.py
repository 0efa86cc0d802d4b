"""examples/serving/kserve_server.py: KServe in a process of its own, asked over HTTP."""
import base64
import contextlib
import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_preact as kp

pytestmark = [
    pytest.mark.skipif(not importlib.util.find_spec("kserve"), reason="kserve is not installed"),
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModels are TensorFlow's"),
]
EXAMPLES = Path(__file__).parent.parent / "examples"
SERVING, IMAGES = EXAMPLES / "serving", EXAMPLES / "images"
CAT, SHIP = IMAGES / "cat_0000.png", IMAGES / "ship_0001.png"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folder of the versions: 2, a shortened network, is not served where there is a 10."""
    base = tmp_path_factory.mktemp("models") / "preact"
    keras.utils.set_random_seed(0)
    kp.export_savedmodel(kp.PreActResNet20(weights="cifar10"), base, version=10)
    (base / "2").mkdir()
    return base


@contextlib.contextmanager
def serving(models):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, SERVING / "kserve_server.py", models, "--model_name", "preact", "--enable_grpc", "false"]
    process = subprocess.Popen([*map(str, command), "--http_port", str(port)])
    try:
        for _ in range(240):
            assert process.poll() is None
            with contextlib.suppress(OSError):
                if ask(f"http://127.0.0.1:{port}/v2/models/preact/ready")[0] == 200:
                    break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def server(models):
    with serving(models) as address:
        yield address


def ask(url, body=None):
    """The status and the answer."""
    body = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def encoded(file):
    return base64.b64encode(file.read_bytes()).decode()


@pytest.fixture(scope="module")
def expected():
    model = kp.PreActResNet20(weights="cifar10")
    images = np.stack([kp.load_image(file, model) for file in (CAT, SHIP)])
    return model.predict_on_batch(kp.preprocess_input(images, model))


def client(address, *files):
    command = [sys.executable, SERVING / "rest_client.py", *files, "--url", f"{address}/v1/models/preact"]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=100)


def test_the_rest_client_works_as_with_tf_serving(server, tmp_path):
    (tmp_path / "broken.png").write_bytes(CAT.read_bytes()[:300])
    done = client(server, CAT, tmp_path / "broken.png", SHIP)
    cat, broken, ship = done.stdout.splitlines()
    assert cat.startswith(f"{CAT}  cat 100.0%  ") and ship.startswith(f"{SHIP}  ship 100.0%  ")
    assert broken.endswith("  no image") and done.stderr == ""


def test_both_protocols_give_what_the_model_gives(server, expected):
    files = [encoded(CAT), encoded(SHIP)]
    status, answer = ask(f"{server}/v1/models/preact:predict", {"instances": [{"b64": file} for file in files]})
    assert status == 200
    first = [row["probabilities"] for row in json.loads(answer)["predictions"]]
    np.testing.assert_allclose(first, expected, atol=1e-5)
    inputs = [{"name": "image_bytes", "datatype": "BYTES", "shape": [2], "data": files}]
    status, answer = ask(f"{server}/v2/models/preact/infer", {"id": "a", "inputs": inputs})
    assert status == 200
    outputs = {output["name"]: output for output in json.loads(answer)["outputs"]}
    assert {name: (output["datatype"], output["shape"]) for name, output in outputs.items()} == {
        "probabilities": ("FP32", [2, 10]), "top_classes": ("INT32", [2, 5]), "top_labels": ("BYTES", [2, 5]),
        "top_probabilities": ("FP32", [2, 5]), "valid": ("BOOL", [2]),
    }
    np.testing.assert_allclose(np.reshape(outputs["probabilities"]["data"], (2, 10)), expected, atol=1e-5)
    assert outputs["top_labels"]["data"][0] == "cat" and outputs["valid"]["data"] == [True, True]


@pytest.mark.parametrize("body", [{"instances": ["cat.png"]}, {"instances": [{"b64": "?"}]}, {"images": []}])
def test_a_wrong_request_is_refused(body, server):
    status, answer = ask(f"{server}/v1/models/preact:predict", body)
    assert status == 400 and "error" in json.loads(answer)


def test_an_unknown_model_is_not_found(server):
    status, answer = ask(f"{server}/v1/models/other:predict", {"instances": []})
    assert status == 404 and "other" in answer


def test_many_clients_get_their_own_answers(server, expected):
    def one(i):
        request = {"instances": [{"b64": encoded((CAT, SHIP)[i % 2])}]}
        return json.loads(ask(f"{server}/v1/models/preact:predict", request)[1])["predictions"][0]["probabilities"]

    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(one, range(128)))
    np.testing.assert_allclose(found, np.tile(expected, (64, 1)), atol=1e-5)
    assert 'request_predict_seconds_count{model_name="preact"}' in ask(f"{server}/metrics")[1]


def test_it_starts_again(models):
    with serving(models) as address:
        assert "cat 100.0%" in client(address, CAT).stdout
    done = client(address, CAT)  # which has ended
    assert done.returncode == 1
    assert done.stderr == f"{address}/v1/models/preact:predict: [Errno 111] Connection refused\n"
