"""Serves an exported network by KServe, over TF Serving's REST path (V1) and the Open Inference Protocol (V2).

    pip install kserve tensorflow
    python kserve_server.py models/preact --model_name preact --http_port 8501
"""
import argparse
import asyncio
import base64
from pathlib import Path

import kserve
import tensorflow as tf
from kserve.errors import InvalidInput


class Network(kserve.Model):
    """Image files in, as base64; the outputs of the signature "serving_bytes" out."""

    def __init__(self, name, folder):
        super().__init__(name)
        newest = max(Path(folder).glob("[0-9]*"), key=lambda version: int(version.name))
        self.network = tf.saved_model.load(str(newest))  # which must live as long as its signatures
        self.call = self.network.signatures["serving_bytes"]
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        second = isinstance(payload, kserve.InferRequest)
        try:
            files = payload.inputs[0].data if second else [image["b64"] for image in payload["instances"]]
            files = tf.constant([base64.b64decode(file, validate=True) for file in files], tf.string)
        except (ValueError, TypeError, LookupError) as error:
            raise InvalidInput(f"Images must be files in base64; of V1 {{'b64': ...}} each: {error!r}") from error
        outputs = await asyncio.to_thread(self.call, image_bytes=files)
        outputs = {name: _plain(value.numpy()) for name, value in outputs.items()}
        if not second:
            return {"predictions": [dict(zip(outputs, row)) for row in zip(*outputs.values())]}
        named = [_named(name, value) for name, value in outputs.items()]
        return kserve.InferResponse(payload.id, self.name, named)


def _plain(values):
    return [[text.decode() for text in row] for row in values] if values.dtype == object else values.tolist()


TYPES = {str: "BYTES", bool: "BOOL", int: "INT32", float: "FP32"}


def _named(name, values):
    shape = [len(values), *([len(values[0])] if isinstance(values[0], list) else [])]
    flat = [value for row in values for value in row] if len(shape) == 2 else values
    return kserve.InferOutput(name, shape, TYPES[type(flat[0])], flat)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser], description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="of the versions, as `keras-preact export` writes it")
    options = parser.parse_args()
    kserve.ModelServer().start([Network(options.model_name, options.folder)])
