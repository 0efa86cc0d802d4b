"""Classifies images through TF Serving's REST API; needs Python alone, and Pillow to send pixels.

    python rest_client.py ../images/cat_0000.png ../images/ship_0001.png
"""
import argparse
import base64
import json
import urllib.error
import urllib.request
from pathlib import Path


def of_files(files):
    """Request of any number of image files, in any of the formats and of any sizes."""
    images = [{"b64": base64.b64encode(Path(file).read_bytes()).decode()} for file in files]
    return {"signature_name": "serving_bytes", "instances": images}


def of_pixels(file, signature):
    """Request of one image that is decoded here; several in one request must be of one size."""
    import numpy as np
    from PIL import Image

    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB"))
    return {"signature_name": signature, "inputs": [pixels.tolist()]}


def post(url, request, timeout):
    request = urllib.request.Request(url, json.dumps(request).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        answer = error.read().decode(errors="replace")
        try:
            answer = json.loads(answer)["error"]
        except (ValueError, KeyError, TypeError):
            pass  # of something else than a model server
        raise SystemExit(f"{error.code}: {answer}") from error
    except (OSError, ValueError) as error:  # no server, none in time, or what is no JSON
        raise SystemExit(f"{url}: {getattr(error, 'reason', error)}") from error


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+")
    parser.add_argument("--url", default="http://localhost:8501/v1/models/preact")
    parser.add_argument("--signature", choices=("serving_bytes", "serving_default", "features"),
                        default="serving_bytes")
    parser.add_argument("--timeout", type=float, default=10, help="seconds")
    options = parser.parse_args()

    def predict(request):
        return post(f"{options.url}:predict", request, options.timeout)

    if options.signature == "serving_bytes":
        for file, outputs in zip(options.images, predict(of_files(options.images))["predictions"]):
            print(file, *best(outputs) if outputs["valid"] else ["no image"], sep="  ")
    for file in options.images if options.signature == "serving_default" else ():
        outputs = predict(of_pixels(file, options.signature))["outputs"]
        print(file, *best({name: values[0] for name, values in outputs.items()}), sep="  ")
    for file in options.images if options.signature == "features" else ():
        (features,) = predict(of_pixels(file, options.signature))["outputs"]
        print(file, f"{len(features)} features", sep="  ")


def best(outputs):
    return [f"{label} {share:.1%}" for label, share in zip(outputs["top_labels"], outputs["top_probabilities"])]


if __name__ == "__main__":
    main()
