"""The clients of examples/serving against a SavedModel, by TF Serving's rules."""
import base64
import io
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import keras
import numpy as np
import pytest
import serving_rules
from PIL import Image

import keras_preact as kp

pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api has the protos")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModels are TensorFlow's")

ROOT = Path(__file__).parent.parent
CLIENTS, IMAGES = ROOT / "examples" / "serving", ROOT / "examples" / "images"
CAT, SHIP = IMAGES / "cat_0000.png", IMAGES / "ship_0001.png"


@pytest.fixture(scope="module")
def servable(tmp_path_factory):
    base = tmp_path_factory.mktemp("models") / "preact"
    kp.export_savedmodel(kp.PreActResNet20(weights="cifar10"), base)
    return serving_rules.Servable(base)


@pytest.fixture(scope="module")
def url(servable):
    with serving_rules.rest(servable) as url:
        yield url


def post(url, body):
    """The status and the answer."""
    request = urllib.request.Request(f"{url}:predict", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def b64(file):
    return {"b64": base64.b64encode(file.read_bytes()).decode()}


def run_client(name, *arguments):
    done = subprocess.run(
        [sys.executable, CLIENTS / name, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout, done.stderr


def test_the_rest_client_sends_files(url, tmp_path):
    (tmp_path / "broken.png").write_bytes(CAT.read_bytes()[:300])
    status, out, err = run_client("rest_client.py", CAT, tmp_path / "broken.png", SHIP, "--url", url)
    assert (status, err) == (0, "")
    cat, broken, ship = out.splitlines()
    assert cat.startswith(f"{CAT}  cat 100.0%  ") and ship.startswith(f"{SHIP}  ship 100.0%  ")
    assert broken.endswith("  no image")


@pytest.mark.parametrize("signature, line", [("serving_default", f"{CAT}  cat 100.0%  dog "),
                                             ("features", f"{CAT}  64 features")])
def test_the_rest_client_sends_pixels(signature, line, url):
    status, out, err = run_client("rest_client.py", CAT, "--url", url, "--signature", signature)
    assert (status, err) == (0, "") and out.startswith(line)


def test_the_rest_client_shows_the_servers_error(url):
    status, out, err = run_client("rest_client.py", CAT, "--url", url.replace("preact", "other"))
    assert (status, out) == (1, "") and err == "404: Servable not found for request: other\n"


@pytest.mark.slow
def test_the_grpc_client(servable, tmp_path):
    pytest.importorskip("grpc")
    (tmp_path / "broken.png").write_bytes(CAT.read_bytes()[:300])
    with serving_rules.grpc_server(servable) as address:
        status, out, err = run_client("grpc_client.py", CAT, tmp_path / "broken.png", "--address", address)
        assert status == 0, err
        cat, broken = out.splitlines()
        assert cat.startswith(f"{CAT}  cat 100.0%  ") and broken.endswith("  no image")
        status, out, err = run_client("grpc_client.py", CAT, "--address", address, "--model", "other")
        assert status == 1 and err.endswith(f"\n{address}: NOT_FOUND: Servable not found for request\n")
        assert "Traceback" not in err


def test_row_and_column_formats_agree(url):
    files = [b64(CAT), b64(SHIP)]
    bodies = [
        {"instances": files}, {"instances": [{"image_bytes": file} for file in files]},
        {"inputs": files}, {"inputs": {"image_bytes": files}},
    ]
    rows, named_rows, columns, named_columns = (
        post(url, {"signature_name": "serving_bytes"} | body) for body in bodies
    )
    assert rows == named_rows and columns == named_columns and rows[0] == columns[0] == 200
    assert rows[1]["predictions"][1] == {name: values[1] for name, values in columns[1]["outputs"].items()}
    assert [row["top_labels"][0] for row in rows[1]["predictions"]] == ["cat", "ship"]
    pixels = np.asarray(Image.open(CAT)).tolist()
    row, column = post(url, {"instances": [pixels]}), post(url, {"inputs": {"images": [pixels]}})
    assert row[1]["predictions"][0] == {name: values[0] for name, values in column[1]["outputs"].items()}
    # Of one image and of two: convs of another batch may add up in another order.
    of_two = rows[1]["predictions"][0]["probabilities"]
    assert row[1]["predictions"][0]["probabilities"] == pytest.approx(of_two, rel=1e-5)


def test_a_single_output_has_no_name(url):
    pixels = np.asarray(Image.open(CAT)).tolist()
    status, answer = post(url, {"signature_name": "features", "instances": [pixels, pixels]})
    assert status == 200 and np.shape(answer["predictions"]) == (2, 64)


def test_jpeg_of_any_size_is_understood(url):
    file = io.BytesIO()
    Image.open(CAT).resize((200, 150), Image.Resampling.BICUBIC).save(file, "JPEG")
    body = {"signature_name": "serving_bytes", "instances": [{"b64": base64.b64encode(file.getvalue()).decode()}]}
    assert post(url, body)[1]["predictions"][0]["top_labels"][0] == "cat"


PIXEL = [[[[1, 2, 3]]]]


@pytest.mark.parametrize("body, message", [
    ({"signature_name": "classify", "instances": PIXEL}, 'signature name: "classify" not found in signature def'),
    ({"instances": [[[[1.0, 2.0, 3.0]]]]}, "JSON Value: 1.0 is not of expected type: uint8"),
    ({"instances": [[[["1", "2", "3"]]]]}, 'JSON Value: "1" is not of expected type: uint8'),
    ({"signature_name": "serving_bytes", "instances": [1]}, "JSON Value: 1 is not of expected type: string"),
    ({"instances": [{"pixels": PIXEL[0]}]}, "Instances must have the keys ['images']"),
    ({"inputs": {"images": PIXEL, "more": PIXEL}}, "Inputs must have the keys ['images']"),
    ({"instances": PIXEL, "inputs": PIXEL}, "exactly one of 'instances' and 'inputs'"),
    ({"instances": [PIXEL[0], [[[1, 2, 3]], [[1, 2, 3]]]]}, "Encountered list at unexpected size"),
    ({"instances": [[[[1, 2]]]]}, "3"),
])
def test_requests_that_tf_serving_refuses(body, message, url):
    status, answer = post(url, body)
    assert status == 400 and message in answer["error"]


def test_the_signatures_in_the_docs_are_those_written(servable, tmp_path_factory):
    from tensorflow.python.tools import saved_model_cli

    done = subprocess.run(
        [sys.executable, saved_model_cli.__file__, "show", "--dir", tmp_path_factory.getbasetemp().glob(
            "models*/preact/1").__next__(), "--tag_set", "serve", "--signature_def", "serving_bytes"],
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in (CLIENTS / "README.md").read_text()


# Of the protos that no package has, the fields that our files use, as their .proto files name and number them.
INT64 = ".google.protobuf.Int64Value"
PROTOS = {
    "BatchingParameters": {
        "max_batch_size": (1, INT64), "batch_timeout_micros": (2, INT64), "max_enqueued_batches": (3, INT64),
        "num_batch_threads": (4, INT64),
    },
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {"prometheus_config": (1, ".PrometheusConfig")},
    "ModelInput": {"name": (1, "string"), "data_type": (2, ".DataType"), "dims": (4, "int64", "repeated")},
    "ModelOutput": {"name": (1, "string"), "data_type": (2, ".DataType"), "dims": (3, "int64", "repeated")},
    "ModelDynamicBatching": {"max_queue_delay_microseconds": (2, "uint64")},
    "ModelConfig": {
        "name": (1, "string"), "backend": (17, "string"), "max_batch_size": (4, "int32"),
        "input": (5, ".ModelInput", "repeated"), "output": (6, ".ModelOutput", "repeated"),
        "dynamic_batching": (11, ".ModelDynamicBatching"),
    },
}
TYPES = {"TYPE_UINT8": "uint8", "TYPE_FP32": "float32"}


@pytest.fixture(scope="module")
def parsed():
    """Returns the message of a proto that a file of examples/serving holds."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
    from tensorflow_serving.config import model_server_config_pb2

    file = descriptor_pb2.FileDescriptorProto(name="ours.proto", dependency=[wrappers_pb2.DESCRIPTOR.name])
    file.enum_type.add(name="DataType").value.extend(
        descriptor_pb2.EnumValueDescriptorProto(name=name, number=number)
        for name, number in (("TYPE_INVALID", 0), ("TYPE_UINT8", 2), ("TYPE_FP32", 11))
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in PROTOS.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, *repeated) in fields.items():
            added = message.field.add(name=field, number=number)
            added.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind.startswith("."):
                added.type_name = kind
            else:
                added.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)

    def parse(name, path):
        if name == "ModelServerConfig":
            message = model_server_config_pb2.ModelServerConfig()
        else:
            message = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))()
        return text_format.Parse((CLIENTS / path).read_text(), message)

    return parse


def test_the_files_that_compose_hands_to_the_server_are_read(parsed):
    yaml = pytest.importorskip("yaml")
    service = yaml.safe_load((CLIENTS / "compose.yaml").read_text())["services"]["preact"]
    mounted = {inside: here for here, inside, _ in (volume.split(":") for volume in service["volumes"])}
    flags = dict(flag.removeprefix("--").partition("=")[::2] for flag in service["command"])
    given = {flag: mounted[path].removeprefix("./") for flag, path in flags.items() if path}
    (model,) = parsed("ModelServerConfig", given["model_config_file"]).model_config_list.config
    assert mounted[model.base_path] == "./models/preact" and model.name == "preact"
    assert sorted(model.version_labels.values()) == list(model.model_version_policy.specific.versions) == [1, 2]
    batching = parsed("BatchingParameters", given["batching_parameters_file"])
    assert (batching.max_batch_size.value, batching.num_batch_threads.value) == (64, 2) and "enable_batching" in flags
    metrics = parsed("MonitoringConfig", given["monitoring_config_file"]).prometheus_config
    assert metrics.enable and f"localhost:8501{metrics.path}" in (CLIENTS / "README.md").read_text()


@pytest.mark.slow
def test_triton_is_told_what_the_onnx_file_has(parsed, tmp_path):
    pytest.importorskip("tf2onnx")
    config = parsed("ModelConfig", "triton/preact/config.pbtxt")
    assert (config.name, config.backend) == ("preact", "onnxruntime") and config.max_batch_size == 64
    kp.export(kp.PreActResNet20(weights="cifar10"), tmp_path / "model.onnx", "onnx")
    told = json.loads((tmp_path / "model.onnx.json").read_text())
    names = config.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number
    for side in ("input", "output"):
        (tensor,) = getattr(config, side)
        assert (tensor.name, TYPES[names[tensor.data_type].name]) == (told[side]["name"], told[side]["type"])
        assert ["batch", *tensor.dims] == told[side]["shape"]
