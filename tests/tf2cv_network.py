"""Writes networks of tf2cv, which wants Keras 2, with random weights as they are published, and their logits.

Each line of standard input is a JSON list: the name, a file of images, the .h5 file to write and that of the logits.
The name is printed when both are written.
"""
import json
import re
import sys

import numpy as np
import tensorflow as tf
from helpers import draw
from tf2cv.model_provider import get_model

for line in sys.stdin:
    name, images, output, logits = json.loads(line)
    images = np.load(images)
    tf.keras.backend.clear_session()
    tf.keras.backend.set_floatx(images.dtype.name)
    model = get_model(name)
    model(images[:1])
    rng = np.random.default_rng(5)
    damping = min(1, 5 / int(re.search(r"\d+", name)[0]) ** 0.5)  # so that signals grow in no deep network
    for variable in model.weights:
        in_unit = "/body/" in variable.name and variable.name.endswith("kernel:0")
        variable.assign(draw(variable.name, variable.shape, rng) * (damping if in_unit else 1))
    model.save_weights(output)
    np.save(logits, model(images, training=False).numpy())
    print(name, flush=True)
