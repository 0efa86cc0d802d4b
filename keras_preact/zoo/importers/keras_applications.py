"""keras.applications' ResNet50V2, 101V2 and 152V2, which are TF-Slim's: biases, and the stride at a stage's end."""
import re

import keras

from keras_preact.data.preprocessing import Preprocessing
from keras_preact.zoo.importers import files
from keras_preact.zoo.importers.engine import KERAS, Upstream

OBJECTS = (keras.Model,)  # what `convert` takes besides files
LAYERS = {
    "stem_conv": "conv1_conv",
    "stage{s}_unit{u}_bn1": "conv{s}_block{u}_preact_bn",
    "stage{s}_unit{u}_conv1": "conv{s}_block{u}_1_conv",
    "stage{s}_unit{u}_bn2": "conv{s}_block{u}_1_bn",
    "stage{s}_unit{u}_conv2": "conv{s}_block{u}_2_conv",
    "stage{s}_unit{u}_bn3": "conv{s}_block{u}_2_bn",
    "stage{s}_unit{u}_conv3": "conv{s}_block{u}_3_conv",
    "stage{s}_unit{u}_shortcut_conv": "conv{s}_block{u}_0_conv",
    "closing_bn": "post_bn",
    "predictions": "predictions",
}
LAYOUT = {
    "stem": "conv7x7_pool", "first_activation": "unit", "stride_on": "last_unit", "shortcut": "project_on_change",
    "use_bias": True, "epsilon": 1.001e-5,
}
# Their published errors are for crops of 299 pixels, Inception's preprocessing.
PREPROCESSING = Preprocessing((0.5,) * 3, (0.5,) * 3, (299, 299), 0.875)


def load(weights, name):
    """Returns the `Upstream` of a model, or of a .h5, .weights.h5 or .keras file."""
    named = re.match(r"resnet(\d+)v2", name.lower())
    return Upstream(
        files.keras(weights), LAYERS, LAYOUT, KERAS, first=(2, 1), depth=named and int(named[1]),
        preprocessing=PREPROCESSING,
    )
