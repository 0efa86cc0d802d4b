"""What a .keras file carries of a network beside Keras's own: its layout, preprocessing and labels.

It is an asset, a file of the archive that Keras writes by the hook `save_assets` and passes over where a model does not
ask for it. So `model.save` keeps it, Keras alone opens the file, and no layer, config or weight is another one.
"""
import dataclasses
import functools
import json
import types
import zipfile
from pathlib import Path

ASSET = "keras_preact.json"
MOST = 10_000_000  # bytes: labels of a hundred thousand classes


def carry(model, config):
    """Lets files of `model` carry what it knows when it is saved, and files of models that are built on it a part.

    Args:
        model: a network with the attributes `preprocessing` and `labels`.
        config: its `NetworkConfig`.
    """
    model.save_assets = functools.partial(_write, model, config)
    # A new head makes a new model of the same layers.
    model.get_layer("stem_conv").save_assets = functools.partial(_write, model, None)


def carry_part(model, preprocessing):
    """Lets files of `model` carry what a network inside it, or behind layers of its own, wants alone."""
    from keras_preact.networks.graph import layers_of

    vars(model).pop("save_assets", None)
    told = types.SimpleNamespace(preprocessing=preprocessing, labels=None)
    for layer in layers_of(model):
        if layer.name == "stem_conv":
            layer.save_assets = functools.partial(_write, told, None)


def config_of(model):
    """Returns the `NetworkConfig` of a network; None of other models."""
    _, config = getattr(getattr(model, "save_assets", None), "args", (None, None))
    return config


def read(path):
    """Returns what a .keras file carries, a dict of "config", "preprocessing" and "labels", None where it is silent.

    A model that holds networks of ours, or their layers, has their preprocessing alone, if they agree on it.
    """
    nothing = dict.fromkeys(("config", "preprocessing", "labels"))
    with zipfile.ZipFile(path) as archive:
        found = {name: _told(archive, name, nothing) for name in archive.namelist() if name.endswith(f"/{ASSET}")}
    whole = found.get(f"assets/{ASSET}")
    if whole or not found:
        return whole or nothing
    first, *others = (told["preprocessing"] for told in found.values())
    return nothing | {"preprocessing": first if all(other == first for other in others) else None}


def _told(archive, name, keys):
    if archive.getinfo(name).file_size > MOST:
        raise OSError(f"{name} has {archive.getinfo(name).file_size} bytes")
    told = json.loads(archive.read(name))
    if not isinstance(told, dict) or told.keys() != keys.keys():
        raise OSError(f"{name} is not what keras_preact writes")
    return told


def _write(model, config, folder):
    told = {
        "config": config and dataclasses.asdict(config),
        "preprocessing": model.preprocessing and dataclasses.asdict(model.preprocessing),
        "labels": model.labels and list(model.labels),
    }
    Path(folder, ASSET).write_text(json.dumps(told), encoding="utf-8")
