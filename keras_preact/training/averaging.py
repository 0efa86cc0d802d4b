"""The network whose weights are averages over the steps of a run, with statistics of its own."""
import itertools

import keras

from keras_preact.data.batches import batches_of
from keras_preact.networks.graph import normalizations_of
from keras_preact.training.recalibration import recalibrate

BATCHES = 50  # of training images, which the statistics are of


class Averaged(keras.callbacks.Callback):
    """Has `fit` measure the network of averages, and train on from the weights that it had.

    Args:
        batches: of training images, what `fit` takes.
    """

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def on_test_begin(self, logs=None):
        variables = list(self.model.trainable_variables)
        for norm in normalizations_of(self.model):
            variables += norm.moving_mean, norm.moving_variance
        self.before = [(variable, keras.ops.convert_to_numpy(variable)) for variable in variables]
        average(self.model, self.batches)

    def on_test_end(self, logs=None):
        for variable, value in self.before:
            variable.assign(value)


def average(network, batches):
    """Gives a network the averages that its optimizer keeps, and the statistics that they have on some batches."""
    network.optimizer.finalize_variable_values(network.trainable_variables)
    for variable in network.trainable_variables:
        variable.assign(keras.ops.copy(variable))  # JAX would free the averages with what they were assigned to
    if any(norm.trainable for norm in normalizations_of(network)):
        plain = keras.Model(network.inputs[0], network.outputs[0])  # a form of training may leave units out
        recalibrate(plain, itertools.islice(batches_of(batches, "the training images"), BATCHES))
