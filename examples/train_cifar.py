"""Train PreActResNet20 on CIFAR-10, as the weights that ship with the package were.

    python examples/train_cifar.py cifar10.npz runs/preactresnet20

The .npz file holds x_train, y_train, x_test and y_test, uint8 images of 32x32x3 and integer labels. The same command
goes on after an interruption.
"""
import sys

import keras
import numpy as np

from keras_preact.datasets import load_npz
from keras_preact.networks import NetworkConfig, ResNet
from keras_preact.recipes import RECIPES
from keras_preact.training import train

MEAN, STD = np.float32([0.4914, 0.4822, 0.4465]), np.float32([0.2470, 0.2435, 0.2616])


def main(data, output, seed=1):
    keras.utils.set_random_seed(seed)
    model = ResNet(NetworkConfig.cifar(20), classifier_activation=None)
    log = train(model, load_npz(data), lambda x: (x / np.float32(255) - MEAN) / STD, RECIPES["cifar_short"], output, seed)
    print(f"Test error after the last epoch: {log[-1]['test_error']} %")


if __name__ == "__main__":
    main(*sys.argv[1:])
