"""The zoo's networks by name: what each builder builds."""
import difflib

from keras_preact.networks.config import IMAGENET_UNITS, NetworkConfig

FAMILIES = {"PreActResNet": {}, "ResNet": {"order": "original"}}
CIFAR = {"basic": (20, 32, 44, 56, 110, 1202), "bottleneck": (164, 272, 542, 1001)}


def _configs():
    for family, changes in FAMILIES.items():
        for unit, depths in CIFAR.items():
            for depth in depths:
                yield f"{family}{depth}", NetworkConfig.cifar(depth, unit, **changes)
        for depth in IMAGENET_UNITS:
            yield f"{family}{depth}", NetworkConfig.imagenet(depth, **changes)


CONFIGS = dict(_configs())


def named(name):
    """Returns the `NetworkConfig` of the builder of that name.

    Raises:
        ValueError: there is none; the message names those that are called nearly so.
    """
    if name not in CONFIGS:
        near = difflib.get_close_matches(str(name), CONFIGS, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else "`keras-preact list` and list_models() name them all."
        raise ValueError(f"No model is named {name!r}. {hint}")
    return CONFIGS[name]


def builder_name(config):
    """Returns the name of the builder whose network `config` is, in whatever layout; None if there is none."""
    def network(config):
        return config.order, config.join, config.unit, config.units, config.widths, config.stem

    return next((name for name, other in CONFIGS.items() if network(other) == network(config)), None)
