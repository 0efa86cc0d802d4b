"""Settings of Keras and Python that are other ones for a while."""
import random
import sys
from contextlib import contextmanager

import keras
import numpy as np


@contextmanager
def recursion_limit(layers):
    """Raises Python's recursion limit so that Keras can walk a path of so many layers."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 300 + layers))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


@contextmanager
def random_seed(seed):
    """Sets the seeds of Python, of which Keras draws its own, and of NumPy, and afterwards the states of before.

    `keras.utils.set_random_seed` sets TensorFlow's and PyTorch's, too, which cannot be set back.
    """
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def dtype_policy(policy):
    """Sets Keras's dtype policy, and afterwards that of before."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
