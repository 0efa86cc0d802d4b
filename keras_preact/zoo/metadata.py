"""What a repository on the Hugging Face Hub says of its network: keras_preact.json, read by a strict schema."""
import dataclasses
import hashlib
import json
import math
import re
from pathlib import PurePosixPath

from keras_preact.data.preprocessing import Preprocessing
from keras_preact.networks.config import NetworkConfig

FORMAT = 2  # 1 of a network that was measured, which older versions read


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a repository says of its network, which is what loading it needs and its card tells.

    Args:
        architecture: name of the builder, or "custom".
        config: a `NetworkConfig`.
        preprocessing: a `Preprocessing`.
        labels: the name of each class.
        dataset: what it was trained on; "" if that has no name.
        measured: error in percent, images, split, crop, selection; {} if it was not measured.
        made: how it was trained: recipe, seed, environment, the base that it was fine-tuned from; as plain JSON.
        licence: SPDX name.
        files: {path: sha256} of every other file.

    Example:

    >>> model = kp.PreActResNet20(weights="cifar10")
    >>> measured = {"error": 8.06, "images": 10000, "split": "test", "crop": "32x32", "selection": "last epoch"}
    >>> config = kp.NetworkConfig.cifar(20)
    >>> kp.Metadata("PreActResNet20", config, model.preprocessing, model.labels, "cifar10", measured).licence
    'Apache-2.0'
    """

    architecture: str
    config: NetworkConfig
    preprocessing: Preprocessing
    labels: tuple
    dataset: str = ""
    measured: dict = dataclasses.field(default_factory=dict)
    made: dict = dataclasses.field(default_factory=dict)
    licence: str = "Apache-2.0"
    files: dict = dataclasses.field(default_factory=dict)

    def to_json(self):
        """Returns the text of keras_preact.json, which holds the sha256 of its own other values."""
        values = {"format": 1 if self.measured else FORMAT} | dataclasses.asdict(self)
        return json.dumps(values | {"sha256": _digest_of(values)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text):
        """Returns the metadata that `text` holds.

        Raises:
            ValueError: it is damaged, of a newer format, or has values that no repository of ours has.
        """
        try:
            return cls._from_json(text)
        except (RecursionError, OverflowError) as error:
            raise ValueError("it has a number that is too large, or values that are nested too deeply") from error

    @classmethod
    def _from_json(cls, text):
        values = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(values, dict) or not isinstance(values.get("format"), int):
            raise ValueError("it has no format version")
        if values["format"] > FORMAT:
            raise NewerFormat(
                f"it is of format {values['format']}, and this version of keras_preact reads format {FORMAT}"
            )
        if values.pop("sha256", None) != _digest_of(values):
            raise ValueError("its sha256 is not the one it names")
        _check(values, _SCHEMA if values.get("measured") else _SCHEMA | {"measured": {}})
        del values["format"]
        return cls(**values | {
            "config": NetworkConfig(**values["config"]), "preprocessing": Preprocessing(**values["preprocessing"]),
            "labels": tuple(values["labels"]),
        })


class NewerFormat(ValueError):
    pass


def _digest_of(values):
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _refuse_constant(name):
    raise ValueError(f"{name} is no value of JSON")


def _text(value):
    return isinstance(value, str) and len(value) <= 1000


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _count(most):
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def _list(check, least, most):
    return lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(check, value))


def _plain(value, depth=4):
    if isinstance(value, dict):
        return depth > 0 and all(_text(key) and _plain(item, depth - 1) for key, item in value.items())
    if isinstance(value, list):
        return depth > 0 and all(_plain(item, depth - 1) for item in value)
    return value is None or isinstance(value, bool) or _text(value) or _number(value)


def _files(value):
    return isinstance(value, dict) and len(value) <= 100 and all(
        _is_inside(name) and isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
        for name, digest in value.items()
    )


def _is_inside(name):
    """Whether a path of a repository stays in its folder, by the rules of every operating system."""
    path = PurePosixPath(name)
    inside = path.parts and not path.is_absolute() and ".." not in path.parts
    return bool(inside) and _text(name) and not re.search(r"[\\:\0]", name)


# Whoever adds a key, or a field of NetworkConfig or Preprocessing, raises FORMAT and fills it in for older files.
_SCHEMA = {
    "format": _count(FORMAT),
    "architecture": _text,
    "config": {
        "units": _list(_count(1000), 1, 8), "widths": _list(_count(10_000), 1, 8), "join": _list(_plain, 1, 3),
        "epsilon": _number, "use_bias": _plain, "normalize_input": _plain,
    } | dict.fromkeys(
        ("unit", "order", "shortcut", "stem", "first_activation", "stride_on", "pool_padding"), _text
    ),
    "preprocessing": {
        "mean": _list(_number, 1, 100), "std": _list(_number, 1, 100), "size": _list(_count(10_000), 2, 2),
        "crop": _number, "interpolation": _text,
    },
    "labels": _list(_text, 1, 100_000),
    "dataset": _text,
    "measured": {"error": _number, "images": _count(10**9), "split": _text, "crop": _text, "selection": _text},
    "made": _plain,
    "licence": _text,
    "files": _files,
}


def _check(values, schema, name=""):
    """Raises ValueError where `values` are not exactly those of `schema`: {key: a check, or a schema of its own}."""
    if not isinstance(values, dict) or values.keys() != schema.keys():
        wrong = sorted(values.keys() ^ schema.keys()) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"{name or 'it'} must have the keys {', '.join(schema)}; missing or unknown: {wrong}")
    for key, check in schema.items():
        path = f"{name}.{key}" if name else key
        if isinstance(check, dict):
            _check(values[key], check, path)
        elif not check(values[key]):
            raise ValueError(f"{path} has a value that is not allowed: {str(values[key])[:100]!r}")
