"""Writes a network of tf2cv, which wants Keras 2, with random weights as it is published, and its logits.

    TF_USE_LEGACY_KERAS=1 python tf2cv_network.py NAME IMAGES.npy OUTPUT.h5 LOGITS.npy
"""
import sys

import numpy as np
import tensorflow as tf
from helpers import draw
from tf2cv.model_provider import get_model

name, images, output, logits = sys.argv[1:]
images = np.load(images)
tf.keras.backend.set_floatx(images.dtype.name)
model = get_model(name)
model(images[:1])
rng = np.random.default_rng(5)
for variable in model.weights:
    variable.assign(draw(variable.name, variable.shape, rng))
model.save_weights(output)
np.save(logits, model(images, training=False).numpy())
