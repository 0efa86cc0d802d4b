"""What there is: the architectures, what they cost, and their published weights."""
import fnmatch
from typing import NamedTuple

from keras_preact.networks import costs
from keras_preact.networks.architectures import CONFIGS
from keras_preact.zoo import index


class ModelInfo(NamedTuple):
    """What `list_models` tells of an architecture; the cost is for its own input size and number of classes."""

    name: str
    parameters: int
    multiply_adds: int
    input_size: tuple
    weights: tuple


def list_models(pattern="*"):
    """Returns a `ModelInfo` for each architecture whose name matches `pattern`, such as "PreAct*" or "*1001".

    Raises:
        ValueError: no name matches.
    """
    models = []
    for name in matching(pattern):
        config = CONFIGS[name]
        cost = costs.count(config)
        tags = tuple(weight.tag for weight in index.entries() if weight.architecture == name)
        models.append(ModelInfo(name, cost.parameters, cost.multiply_adds, config.input_size, tags))
    return models


def list_weights(model="*"):
    """Returns the published `Weight`s of each architecture whose name matches `model`.

    Each tells its measured error and, as `where`, whether it is "bundled" with the package, "cached" or "remote".
    """
    architectures = matching(model)
    return [weight for weight in index.entries() if weight.architecture in architectures]


def matching(pattern):
    """Returns the names of the architectures that match `pattern`, or raises ValueError where there is none."""
    names = fnmatch.filter(CONFIGS, pattern)
    if not names:
        raise ValueError(f"No model is named {pattern!r}. There are: {', '.join(CONFIGS)}")
    return names
