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


def list_models(pattern: str = "*") -> list[ModelInfo]:
    """Returns a `ModelInfo` for each architecture whose name matches `pattern`, such as "PreAct*" or "*1001".

    Raises:
        ValueError: no name matches.

    Example:

    >>> [info.name for info in kp.list_models("PreAct*1*0*")]
    ['PreActResNet110', 'PreActResNet1202', 'PreActResNet1001', 'PreActResNet10', 'PreActResNet101']
    """
    models = []
    for name in matching(pattern):
        config = CONFIGS[name]
        cost = costs.count(config)
        tags = tuple(tag for weight in index.of(name) for tag in weight.tags)
        models.append(ModelInfo(name, cost.parameters, cost.multiply_adds, config.input_size, tags))
    return models


def list_weights(model: str = "*") -> list[index.Weight]:
    """Returns the published weights of each architecture whose name matches `model`, ours and then those of other zoos.

    Each tells its `tags`, `source`, `licence`, `citation`, `measured` error with crop and selection rule, `size` (None
    if unknown), `hash`, and as `where` whether it is "bundled" with the package, "cached" or "remote". No network is
    used.

    Raises:
        ValueError: no name matches.

    Example:

    >>> [weight.tag for weight in kp.list_weights("PreActResNet1001")]
    ['cifar10_tf2cv', 'cifar100_tf2cv']
    """
    return [weight for name in matching(model) for weight in index.of(name)]


def matching(pattern):
    """Returns the names of the architectures that match `pattern`, or raises ValueError where there is none."""
    names = fnmatch.filter(CONFIGS, pattern)
    if not names:
        raise ValueError(f"No model is named {pattern!r}. There are: {', '.join(CONFIGS)}")
    return names
