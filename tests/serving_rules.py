"""A server on loopback that follows TF Serving's rules, which no package registry carries.

Restated from tensorflow/serving: json_tensor.cc (JSON to tensors and back), http_rest_api_handler.cc (paths and
errors), predict_util.cc (inputs of a request), saved_model_warmup_util.cc (a failing record stops the load).
"""
import base64
import json
import re
import threading
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import tensorflow as tf

JSON_TYPES = {  # what a value must be, by dtype
    "uint8": lambda value: type(value) is int, "int32": lambda value: type(value) is int,
    "float32": lambda value: type(value) in (int, float), "bool": lambda value: type(value) is bool,
    "string": lambda value: type(value) is str or _is_base64(value),
}


class Refused(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Servable:
    """The newest version in `base`, loaded and warmed up."""

    def __init__(self, base):
        self.name = base.name
        self.version = max(int(child.name) for child in base.iterdir() if child.name.isdecimal())
        folder = base / str(self.version)
        self.loaded = tf.saved_model.load(str(folder), tags=["serve"])
        self.warmed_up = list(warmup(folder))
        for signature, inputs in self.warmed_up:
            self.run(signature, inputs)

    def spec(self, signature):
        if signature not in self.loaded.signatures:
            raise Refused(400, f'Serving signature name: "{signature}" not found in signature def')
        return self.loaded.signatures[signature].structured_input_signature[1]

    def run(self, signature, inputs):
        if inputs.keys() != self.spec(signature).keys():
            raise Refused(400, f"input size does not match signature: {sorted(inputs)}")
        try:
            outputs = self.loaded.signatures[signature](**inputs)
        except (tf.errors.InvalidArgumentError, TypeError) as error:
            raise Refused(400, str(error)) from error
        return {name: value.numpy() for name, value in outputs.items()}


def warmup(folder):
    """Yields (signature, inputs) of each warm-up record."""
    from tensorflow_serving.apis import prediction_log_pb2

    for record in tf.data.TFRecordDataset(str(Path(folder) / "assets.extra" / "tf_serving_warmup_requests")):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == Path(folder).parent.name
        yield request.model_spec.signature_name, {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}


def answer(servable, path, body):
    """Returns what the REST API answers to a POST."""
    found = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict", path)
    if not found:
        raise Refused(404, f"Malformed request: POST {path}")
    name, version = found.groups()
    if name != servable.name or version not in (None, str(servable.version)):
        raise Refused(404, f"Servable not found for request: {name}")
    try:
        body = json.loads(body)
    except json.JSONDecodeError as error:
        raise Refused(400, f"JSON Parse error: {error}") from error
    if not isinstance(body, dict) or ("instances" in body) == ("inputs" in body):
        raise Refused(400, "Request must have exactly one of 'instances' and 'inputs'")
    signature = body.get("signature_name", "serving_default")
    spec = servable.spec(signature)
    row = "instances" in body
    columns = _columns_of_rows(body["instances"], spec) if row else _columns(body["inputs"], spec)
    outputs = servable.run(signature, {name: _tensor(columns[name], spec[name]) for name in spec})
    return _json_of_rows(outputs) if row else _json_of_columns(outputs)


def _columns_of_rows(rows, spec):
    if not isinstance(rows, list) or not rows:
        raise Refused(400, "'instances' must be a list with values")
    if not all(isinstance(row, dict) and not _is_base64(row) for row in rows):
        return _columns(rows, spec)
    if any(row.keys() != spec.keys() for row in rows):
        raise Refused(400, f"Instances must have the keys {sorted(spec)}")
    return {name: [row[name] for row in rows] for name in spec}


def _columns(values, spec):
    if isinstance(values, dict) and not _is_base64(values):
        if values.keys() != spec.keys():
            raise Refused(400, f"Inputs must have the keys {sorted(spec)}")
        return values
    if len(spec) != 1:
        raise Refused(400, f"Inputs must be named: {sorted(spec)}")
    return dict.fromkeys(spec, values)


def _is_base64(value):
    return isinstance(value, dict) and list(value) == ["b64"]


def _tensor(values, spec):
    def flat(value, shape):
        if shape and (not isinstance(value, list) or len(value) != shape[0]):
            raise Refused(400, "Encountered list at unexpected size or depth")
        if shape:
            return [item for child in value for item in flat(child, shape[1:])]
        if not JSON_TYPES[spec.dtype.name](value):
            raise Refused(400, f"JSON Value: {json.dumps(value)[:40]} is not of expected type: {spec.dtype.name}")
        return [base64.b64decode(value["b64"], validate=True) if _is_base64(value) else value]

    shape, value = [], values
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tf.reshape(tf.constant(flat(values, shape), spec.dtype), shape)


def _json_of_rows(outputs):
    if len({len(value) for value in outputs.values()}) != 1:
        raise Refused(400, "Outputs must have the same batch dimension in row format")
    columns = {name: _plain(name, value) for name, value in outputs.items()}
    if len(columns) == 1:
        (rows,) = columns.values()
    else:
        rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    return {"predictions": rows}


def _json_of_columns(outputs):
    columns = {name: _plain(name, value) for name, value in outputs.items()}
    return {"outputs": columns.popitem()[1] if len(columns) == 1 else columns}


def _plain(name, value):
    if value.dtype.name not in ("float32", "float64", "int32", "int64", "bool", "object"):
        raise Refused(400, f"There is no JSON form of {value.dtype}")
    if value.dtype != object:
        return value.tolist()
    write = (lambda text: {"b64": base64.b64encode(text).decode()}) if name.endswith("_bytes") else bytes.decode
    return np.vectorize(write, otypes=[object])(value).tolist()


@contextmanager
def rest(servable):
    """Serves it; yields the URL of the model."""
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                status, found = 200, answer(servable, self.path, body)
            except Refused as error:
                status, found = error.status, {"error": str(error)}
            text = json.dumps(found, allow_nan=False).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/models/{servable.name}"
        server.shutdown()


@contextmanager
def grpc_server(servable):
    """Serves PredictionService; yields its address."""
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            if request.model_spec.name != servable.name:
                context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
            inputs = {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
            try:
                outputs = servable.run(request.model_spec.signature_name or "serving_default", inputs)
            except Refused as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            tensors = {name: tf.make_tensor_proto(value) for name, value in outputs.items()}
            return predict_pb2.PredictResponse(model_spec=request.model_spec, outputs=tensors)

    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)
