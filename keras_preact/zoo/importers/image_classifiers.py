"""image-classifiers' `resnet18` to `resnet152`, MXNet's: a batch normalization of the data, and stage 1 projects."""
import re

import keras

from keras_preact.data.preprocessing import Preprocessing
from keras_preact.zoo.importers import files
from keras_preact.zoo.importers.engine import KERAS, Upstream

OBJECTS = (keras.Model,)  # what `convert` takes besides files
LAYERS = {
    "input_bn": "bn_data",
    "stem_conv": "conv0",
    "stem_bn": "bn0",
    "stage{s}_unit{u}_bn{i}": "stage{s}_unit{u}_bn{i}",
    "stage{s}_unit{u}_conv{i}": "stage{s}_unit{u}_conv{i}",
    "stage{s}_unit{u}_shortcut_conv": "stage{s}_unit{u}_sc",
    "closing_bn": "bn1",
    "predictions": "fc1",
}
LAYOUT = {
    "stem": "conv7x7_pool", "first_activation": "both", "stride_on": "conv3x3", "shortcut": "project_stages",
    "epsilon": 2e-5, "normalize_input": True,
}
PREPROCESSING = Preprocessing((0.0,) * 3, (1 / 255,) * 3, (224, 224), 0.875)  # pixel values as they are


def load(weights, name):
    """Returns the `Upstream` of a model, or of a .h5, .weights.h5 or .keras file."""
    named = re.match(r"resnet(\d+)", name)
    return Upstream(
        files.keras(weights), LAYERS, LAYOUT, KERAS, depth=named and int(named[1]), preprocessing=PREPROCESSING
    )
