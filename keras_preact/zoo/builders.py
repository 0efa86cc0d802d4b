"""The zoo: one builder for each architecture, a row each, in the style of `keras.applications`."""
import dataclasses
import fnmatch
import os
import warnings
from typing import NamedTuple

from keras_preact.data import preprocessing
from keras_preact.networks import costs
from keras_preact.networks.architectures import CONFIGS, builder_name
from keras_preact.networks.building import ResNet, check_top, dtype_policy
from keras_preact.networks.units import channel_axis
from keras_preact.zoo import hub, index as pretrained

_DOCSTRING = """Builds {name}: {what}.

    Args:
        include_top: whether to end with global average pooling and a dense layer, named "predictions".
        weights: None for random ones (default), a tag that `list_weights("{name}")` names, such as "cifar10",
            "hf://owner/name" or "hf://owner/name@revision" for a repository of the Hugging Face Hub that
            `push_to_hub` wrote or timm published, or a path to a .weights.h5 or .keras file. What comes from another
            zoo, as "imagenet" does, brings its layout.
        input_tensor: a Keras tensor to start from; default a new `keras.Input`.
        input_shape: (height, width, channels), or (channels, height, width) if the image data format is
            "channels_first"; height and width may be None and are at least {stride}, and with weights channels None
            are theirs. Default: {size}x{size}x3, or the size that converted weights tell, and any height and width
            where `include_top` is False.
        pooling: without the top, None for the last feature map of shape (batch, height, width, channels), "avg" or
            "max" for features of shape (batch, channels).
        classes: outputs of the dense layer; default those of the weights, or {classes}. With another number than the
            weights have, all but the dense layer is loaded, with a warning that names it.
        classifier_activation: of the dense layer; None for logits.
        name: of the model.

    Returns:
        A functional `keras.Model` of built-in layers. With weights by tag or from the Hub it has the attributes
        `preprocessing`, what `preprocess_input` takes, and `labels`, what `decode_predictions` takes.

    Raises:
        ValueError: arguments that contradict each other, a size that the strides do not allow, weights that do not
            exist, are damaged, or do not fit.
        OSError: weights that cannot be had from the Hub as they were published.

    Example:

    >>> model = keras_preact.{name}(weights="hf://owner/name")
    >>> probabilities = model.predict(keras_preact.preprocess_input(images, model.preprocessing))

    Reference: {reference}.
    """


def _builder(name):
    config, default = CONFIGS[name], name.lower()
    size = config.input_size[0]
    what = f"the {config.depth}-layer network for {size}x{size} images, of {config.unit} units"

    def build(
        include_top=True,
        weights=None,
        input_tensor=None,
        input_shape=None,
        pooling=None,
        classes=None,
        classifier_activation="softmax",
        name=default,
    ):
        return _build(
            build.__name__, weights, config=config, include_top=include_top, input_tensor=input_tensor,
            input_shape=input_shape, pooling=pooling, classes=classes, classifier_activation=classifier_activation,
            name=name,
        )

    build.__name__ = build.__qualname__ = name
    build.__doc__ = _DOCSTRING.format(
        name=name, what=what, stride=config.stride, size=size, classes=config.default_classes,
        reference=(
            'He et al., "Deep Residual Learning for Image Recognition", CVPR 2016' if config.order == "original"
            else 'He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016, Fig. 4(e) and appendix'
        ),
    )
    return build


def _build(architecture, weights, classes, **arguments):
    top = arguments["include_top"]
    check_top(top, arguments["pooling"], classes)
    if weights is None:
        return ResNet(classes=classes, **arguments)
    path, known = _find(architecture, arguments["config"], weights)
    layers = pretrained.read(path)
    arguments["config"] = getattr(known, "config", arguments["config"])
    if top and known and known.preprocessing and arguments["input_tensor"] is arguments["input_shape"] is None:
        arguments["input_shape"] = known.preprocessing.input_shape
    arguments["input_shape"] = pretrained.completed(arguments["input_shape"], layers)
    _check_channels(layers, architecture, arguments["input_tensor"], arguments["input_shape"])
    trained = layers[pretrained.HEAD][0].shape[-1] if pretrained.HEAD in layers else None
    if top and classes is None:
        classes = trained
    new_head = top and (trained is None or classes != trained)
    model = ResNet(classes=classes, **arguments)
    pretrained.assign(model, layers, repr(os.fspath(weights)), keep_head=new_head)
    if known:
        model.preprocessing = known.preprocessing
        model.labels = None if new_head else preprocessing.LABELS.get(known.labels, known.labels)
    if new_head:
        had = f"{trained} classes" if trained else "no such layer"
        warnings.warn(
            f"{architecture}: all layers but {pretrained.HEAD!r} were loaded from {weights!r}. That layer was "
            f"initialised at random, for {model.output_shape[-1]} classes where the weights have {had}: train it "
            "before use.",
            stacklevel=3,
        )
    return model


def _find(architecture, config, weights):
    """Returns the path of a file of weights, and what is known of it: a `Weight`, a `Metadata`, an `About`, or None."""
    if not hub.is_address(weights) and not pretrained.is_path(weights):
        weight = pretrained.find(architecture, weights)
        if isinstance(weight, pretrained.Weight):
            return pretrained.verified(weight), weight
        weights = _upstream(weight)
    path = weights
    if hub.is_address(weights):
        try:
            snapshot = hub.snapshot(weights)
            _check_config(architecture, config, weights, snapshot.metadata)
            return snapshot.file(hub.WEIGHTS), snapshot.metadata
        except hub.NotOurs:
            path = _converted(weights)
    about = pretrained.about(path)
    if about and builder_name(about.config) != architecture:
        raise ValueError(
            f"{weights} holds weights of {builder_name(about.config)}. Received: the builder {architecture}"
        )
    return path, about


def _upstream(weight):
    """Returns the address of a weight of another zoo on the Hub.

    Raises:
        ValueError: it is not there; the message says how to get it.
    """
    if hub.is_address(weight.file):
        return weight.file
    name = f"{weight.architecture.lower()}-{weight.tag}.weights.h5"
    download = "Download and unzip" if weight.file.endswith(".zip") else "Download"
    raise ValueError(
        f"The weights {weight.tag!r} of {weight.architecture} are published by another zoo, from where they are not "
        f"fetched. {download} {weight.file}{f' ({weight.hash})' if weight.hash else ''}, run `keras-preact convert "
        f"{weight.source} FILE --output {name}`, and give weights={name!r}."
    )


def _converted(address):
    """Returns the path of the weights of a timm repository on the Hub, converted when they are first used."""
    from keras_preact.zoo import importers

    repository, commit = hub.resolve(address)
    path = hub.converted(repository, commit)
    if not path.exists():
        folder = hub.listed(repository, commit, ("config.json", "model.safetensors"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with dtype_policy("float32"):  # the file is for all policies
            importers.convert("timm", folder, repository.split("/")[1], path)
    return path


def _check_config(architecture, config, weights, published):
    if builder_name(published.config) == architecture:
        return  # perhaps in the layout of another zoo
    here, there = dataclasses.asdict(config), dataclasses.asdict(published.config)
    differences = [f"{name} is {there[name]!r} and {here[name]!r}" for name in here if here[name] != there[name]]
    if differences:
        raise ValueError(
            f"{weights!r} holds {published.architecture} and the builder is {architecture}: {'; '.join(differences)}. "
            f"Use that builder, or keras_preact.from_hub({weights.removeprefix(hub.PREFIX)!r})."
        )


def _check_channels(layers, architecture, input_tensor, input_shape):
    shape = input_shape if input_tensor is None else input_tensor.shape[1:]
    trained = pretrained.channels(layers)
    if shape is None or len(shape) != 3 or trained is None:
        return
    if trained != shape[-1 if channel_axis() == -1 else 0]:
        raise ValueError(
            f"These weights of {architecture} were trained on images of {trained} channels; give such images, or take "
            f"weights=None. Received: an input of shape {tuple(shape)}"
        )


PreActResNet20 = _builder("PreActResNet20")
PreActResNet32 = _builder("PreActResNet32")
PreActResNet44 = _builder("PreActResNet44")
PreActResNet56 = _builder("PreActResNet56")
PreActResNet110 = _builder("PreActResNet110")
PreActResNet1202 = _builder("PreActResNet1202")
PreActResNet164 = _builder("PreActResNet164")
PreActResNet272 = _builder("PreActResNet272")
PreActResNet542 = _builder("PreActResNet542")
PreActResNet1001 = _builder("PreActResNet1001")
PreActResNet18 = _builder("PreActResNet18")
PreActResNet34 = _builder("PreActResNet34")
PreActResNet50 = _builder("PreActResNet50")
PreActResNet101 = _builder("PreActResNet101")
PreActResNet152 = _builder("PreActResNet152")
PreActResNet200 = _builder("PreActResNet200")
PreActResNet269 = _builder("PreActResNet269")

ResNet20 = _builder("ResNet20")
ResNet32 = _builder("ResNet32")
ResNet44 = _builder("ResNet44")
ResNet56 = _builder("ResNet56")
ResNet110 = _builder("ResNet110")
ResNet1202 = _builder("ResNet1202")
ResNet164 = _builder("ResNet164")
ResNet272 = _builder("ResNet272")
ResNet542 = _builder("ResNet542")
ResNet1001 = _builder("ResNet1001")
ResNet18 = _builder("ResNet18")
ResNet34 = _builder("ResNet34")
ResNet50 = _builder("ResNet50")
ResNet101 = _builder("ResNet101")
ResNet152 = _builder("ResNet152")
ResNet200 = _builder("ResNet200")
ResNet269 = _builder("ResNet269")


def from_hub(repository, **arguments):
    """Builds the network that a repository of the Hugging Face Hub holds, with its weights.

    Nothing that is downloaded is executed, and no weight is set before the sha256 of its file was compared.

    Args:
        repository: "owner/name" or "owner/name@revision", a branch, a tag or a commit; `push_to_hub` writes such, and
            timm's resnetv2 networks with batch normalization are converted.
        **arguments: as of the builders, such as `classes` or `include_top`; `input_shape` is by default that of the
            repository's preprocessing.

    Returns:
        A functional `keras.Model` of built-in layers, with the attributes `preprocessing`, what `preprocess_input`
        takes, and `labels`, what `decode_predictions` takes.

    Raises:
        OSError: the repository cannot be had, is not of our layout, or a file of it is not the published one.
        ValueError: arguments that contradict each other or do not fit the weights.

    Example:

    >>> model = keras_preact.from_hub("owner/name")
    >>> probabilities = model.predict(keras_preact.preprocess_input(images, model.preprocessing))
    >>> keras_preact.decode_predictions(probabilities, weights=model.labels)
    """
    try:
        snapshot = hub.snapshot(repository)
    except hub.NotOurs:
        path = _converted(repository)
        known = pretrained.about(path)
        architecture, weights = builder_name(known.config), path
    else:
        known = snapshot.metadata
        architecture, weights = known.architecture, f"{hub.PREFIX}{snapshot.repository}@{snapshot.commit}"
    defaults = dict.fromkeys(("pooling", "classes", "input_tensor", "input_shape")) | {"include_top": True}
    if architecture in CONFIGS:
        defaults["name"] = architecture.lower()
    if arguments.get("input_tensor") is None and known.preprocessing:
        defaults["input_shape"] = known.preprocessing.input_shape
    return _build(architecture, weights, config=known.config, **defaults | arguments)


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
    for name in _matching(pattern):
        config = CONFIGS[name]
        cost = costs.count(config)
        tags = tuple(weight.tag for weight in pretrained.index() if weight.architecture == name)
        models.append(ModelInfo(name, cost.parameters, cost.multiply_adds, config.input_size, tags))
    return models


def list_weights(model="*"):
    """Returns the published `Weight`s of each architecture whose name matches `model`.

    Each tells its measured error and, as `where`, whether it is "bundled" with the package, "cached" or "remote".
    """
    architectures = _matching(model)
    return [weight for weight in pretrained.index() if weight.architecture in architectures]


def pull(name):
    """Fetches weights into the cache, for use without a network.

    Args:
        name: of a builder, or a pattern such as "PreAct*", for all its weights that the Hub has; or "owner/name" or
            "owner/name@revision" for every file of a repository of ours, or for the weights of one of timm's.

    Returns:
        The paths of the files.

    Raises:
        OSError: a file cannot be had, or is not the published one.
        ValueError: no model is named so, or there is nothing to fetch.
    """
    if "/" in name:
        try:
            snapshot = hub.snapshot(name)
        except hub.NotOurs:
            return [_converted(name)]
        return [snapshot.file(file) for file in snapshot.metadata.files]
    names = _matching(name)
    paths = [pretrained.verified(weight) for weight in list_weights(name)] + [
        _converted(weight.file) for weight in pretrained.upstream()
        if weight.architecture in names and hub.is_address(weight.file)
    ]
    if not paths:
        raise ValueError(f"The Hub has no weights of {', '.join(names)}; `keras-preact list` shows whose there are.")
    return paths


def _matching(pattern):
    names = fnmatch.filter(CONFIGS, pattern)
    if not names:
        raise ValueError(f"No model is named {pattern!r}. There are: {', '.join(CONFIGS)}")
    return names


def preprocess_input(x, weights="cifar10", model=None, data_format=None):
    """Normalizes images as `weights` were trained: (x / 255 - mean) / std. The argument itself stays as it is.

    Args:
        x: array or tensor of pixel values from 0 to 255, uint8 or float, of shape (..., height, width, 3), or
            (..., 3, height, width) if the data format is "channels_first".
        weights: a tag that `list_weights` names, or a `Preprocessing`, such as `model.preprocessing`.
        model: the name of the builder, where the weights of one tag differ.
        data_format: default Keras's `image_data_format`.

    Returns:
        float32 of the shape of `x`.

    Raises:
        ValueError: an unknown tag, or another number of channels.
    """
    return preprocessing.normalize(x, _preprocessing(weights, model), data_format)


def decode_predictions(preds, top=5, weights="cifar10", model=None):
    """Returns the `top` best (label, probability) pairs for each row of `preds`, best first.

    Args:
        preds: array or tensor of shape (batch, classes).
        top: how many pairs; all if there are fewer.
        weights: a tag that `list_weights` names, the name of a label set ("cifar10", "cifar100", "imagenet",
            "imagenet_wordnet_ids"), or a list with a label for each class, such as `model.labels`.
        model: the name of the builder, where the weights of one tag differ.

    Raises:
        ValueError: an unknown tag, no labels, or predictions that do not have one column for each label.
    """
    labels = weights
    if labels is None:
        raise ValueError("A network with a new head has no labels: give `weights` a list with one for each class.")
    if isinstance(weights, str):
        known = weights if weights in preprocessing.LABELS else pretrained.describe(weights, model).labels
        labels = preprocessing.LABELS[known]
    return preprocessing.decode(preds, labels, top)


def load_image(file, weights="cifar10", model=None):
    """Returns the image in `file` as `weights` expect it: resized, cropped, uint8 of shape (height, width, 3).

    Args:
        file: path or binary file of any format Pillow reads.
        weights: a tag that `list_weights` names, or a `Preprocessing`, such as `model.preprocessing`.
        model: the name of the builder, where the weights of one tag differ.

    Raises:
        ValueError: an unknown tag.
        OSError: no such file, or not an image.
    """
    return preprocessing.load_image(file, _preprocessing(weights, model))


def _preprocessing(weights, model):
    if isinstance(weights, preprocessing.Preprocessing):
        return weights
    return pretrained.describe(weights, model).preprocessing
