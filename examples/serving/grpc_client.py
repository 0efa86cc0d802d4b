"""Classifies images through TF Serving's gRPC API: pip install tensorflow-serving-api.

    python grpc_client.py ../images/cat_0000.png ../images/ship_0001.png
"""
import argparse
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def request_of(files, model):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "serving_bytes"
    images = [Path(file).read_bytes() for file in files]
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images))
    return request


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+")
    parser.add_argument("--address", default="localhost:8500")
    parser.add_argument("--model", default="preact")
    parser.add_argument("--timeout", type=float, default=10, help="seconds")
    options = parser.parse_args()
    with grpc.insecure_channel(options.address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            response = stub.Predict(request_of(options.images, options.model), options.timeout)
        except grpc.RpcError as error:
            raise SystemExit(f"{options.address}: {error.code().name}: {error.details()}") from error
    outputs = {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}
    for i, file in enumerate(options.images):
        best = zip(outputs["top_labels"][i], outputs["top_probabilities"][i])
        line = [f"{label.decode()} {share:.1%}" for label, share in best]
        print(file, *line if outputs["valid"][i] else ["no image"], sep="  ")


if __name__ == "__main__":
    main()
