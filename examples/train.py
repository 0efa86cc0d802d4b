"""Train a network on CIFAR-10 by the paper's recipe, in Python; `keras-preact train` does the same.

    python examples/train.py

TensorFlow Datasets must have CIFAR-10 prepared, once:
    python -c "import tensorflow_datasets as tfds; tfds.load('cifar10')"
"""
import keras_preact as kp

log = kp.train("PreActResNet20", data="cifar10", recipe="cifar_paper", output="runs/preactresnet20")
print(f"Test error after the last epoch: {log[-1]['test_error']} %")

model, run = kp.load_run("runs/preactresnet20")
report = kp.evaluate(model, "cifar10")
for label, images, error in report.per_class():
    print(f"{label:12} {error:5.1f} % of {images} wrong")
