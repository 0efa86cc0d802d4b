"""Fine-tune a pretrained network, and compare with training from scratch.

    python examples/fine_tune.py flower_photos --size 64 --epochs 5     # a folder of class folders of images
    python examples/fine_tune.py cifar100 --images 5000 --epochs 10     # a TensorFlow data set

Of a folder every fifth image of a class is kept for testing.
"""
import argparse
import json
from pathlib import Path

import keras
import numpy as np

import keras_preact as kp
from keras_preact.data import datasets

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data", help="folder, .npz file or TensorFlow data set")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--size", type=int, default=64, help="side in pixels of images that differ in size (default: 64)")
parser.add_argument("--images", type=int, help="train on so many, drawn at random (default: all)")
parser.add_argument("--output", type=Path, default=Path("fine_tuned"))
options = parser.parse_args()

data = datasets.load(options.data, (options.size, options.size))
x, x_test = (kp.preprocess_input(images, weights="cifar10") for images in (data.x_train, data.x_test))
# Files of a folder come class by class.
drawn = np.random.default_rng(1).permutation(len(x))[:options.images]
x, y, classes = x[drawn], data.y_train[drawn], len(data.labels)


def fit(model, learning_rate):
    model.compile(keras.optimizers.SGD(learning_rate, 0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=32, epochs=options.epochs, verbose=2)
    return model.evaluate(x_test, data.y_test, verbose=0, return_dict=True)["accuracy"]


keras.utils.set_random_seed(1)
shape = data.image_shape
scratch = fit(kp.PreActResNet20(input_shape=shape, classes=classes), 0.05)

model = kp.PreActResNet20(weights="cifar10", input_shape=shape, classes=classes)
kp.freeze(model, until="stage3")
# Frozen batch normalization does not hold the trained layers in check: at 0.05 they diverge.
tuned = fit(model, 0.01)
print(f"Test accuracy after {options.epochs} epochs: {scratch:.1%} from scratch, {tuned:.1%} fine-tuned")

model.labels = data.labels  # which the file keeps
options.output.mkdir(parents=True, exist_ok=True)
model.save(options.output / "model.keras")
(options.output / "labels.json").write_text(json.dumps(data.labels), encoding="utf-8")
