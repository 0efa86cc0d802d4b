"""timm's `resnetv2_*` with batch normalization: the stem pools, padded with minus infinity, before any activation."""
import re
from collections.abc import Mapping

from keras_preact._support.checks import from_values
from keras_preact._support.paths import existing
from keras_preact.data.preprocessing import Preprocessing
from keras_preact.zoo.importers import files
from keras_preact.zoo.importers.engine import TORCH, Upstream

OBJECTS = (Mapping,)  # what `convert` takes besides files
LAYERS = {
    "stem_conv": "stem.conv",
    "stage{s}_unit{u}_bn{i}": "stages.{s}.blocks.{u}.norm{i}",
    "stage{s}_unit{u}_conv{i}": "stages.{s}.blocks.{u}.conv{i}",
    "stage{s}_unit{u}_shortcut_conv": "stages.{s}.blocks.{u}.downsample.conv",
    "closing_bn": "norm",
    "predictions": "head.fc",
}
LAYOUT = {
    "stem": "conv7x7_pool", "first_activation": "unit", "stride_on": "conv3x3", "shortcut": "project_on_change",
    "pool_padding": "minus_infinity",
}


DEPTHS = {f"resnetv2_{depth}": depth for depth in (18, 34, 50, 101, 152)}
# Arguments of theirs that the tensors show or that change nothing at inference.
HARMLESS = {"num_classes", "in_chans", "drop_rate", "drop_path_rate"}


def load(weights, name):
    """Returns the `Upstream` of a repository's folder, of a file of Safetensors or Torch, or of a state dict."""
    config, path = {}, "the given dict"
    if isinstance(weights, Mapping):
        tensors = files.state_dict(weights)
    else:
        file = _file_in(weights) if weights.is_dir() else weights
        path = file.parent / "config.json"
        config = files.config(path) if path.is_file() else {}
        tensors = files.safetensors_or_torch(file)
    with files.understanding(path, "timm configuration"):
        return _upstream(tensors, config, name, path)


def _file_in(folder):
    older = folder / "pytorch_model.bin"
    newer = folder / "model.safetensors"
    return existing("weights", older if older.is_file() and not newer.exists() else newer)


def _upstream(tensors, config, name, path):
    named = re.match(r"resnetv2_\w+", name)
    architecture = config.get("architecture") or (named and named[0])
    arguments = {"global_pool": config.get("global_pool", "avg")} | (config.get("model_args") or {})
    if arguments["global_pool"] == "avg":
        del arguments["global_pool"]
    changed = arguments.keys() - HARMLESS
    if changed or architecture not in {None, *DEPTHS}:
        raise ValueError(
            f"Of timm's networks these can be expressed: {', '.join(DEPTHS)}. Received: {architecture}"
            + (f" with other {', '.join(sorted(changed))}" if changed else "")
        )
    trained = config.get("pretrained_cfg", {})
    return Upstream(
        tensors, LAYERS, LAYOUT, TORCH, first=(0, 0), depth=DEPTHS.get(architecture),
        preprocessing=_preprocessing(trained, path),
        labels=_labels(config.get("label_names", trained.get("label_names"))),
    )


def _preprocessing(trained, path):
    values = [trained.get(key) for key in ("mean", "std", "input_size", "crop_pct", "interpolation")]
    if None in values or trained.get("crop_mode", "center") != "center":
        return None
    mean, std, size, crop, interpolation = values
    values = {"mean": mean, "std": std, "size": size[1:], "crop": crop, "interpolation": interpolation}
    return from_values(Preprocessing, values, path)


def _labels(names):
    if isinstance(names, dict):
        if not all(map(str.isdecimal, names)):
            raise TypeError("label_names must number the classes")
        names = [names[key] for key in sorted(names, key=int)]
    return tuple(names) if names else "imagenet"
