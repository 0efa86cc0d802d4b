"""The zoo: one builder for each architecture, a row each, in the style of `keras.applications`."""
import os
import warnings
from typing import Any

import keras

from keras_preact._support.checks import check_choice
from keras_preact.data.preprocessing import LABELS, for_model
from keras_preact.networks import files
from keras_preact.networks.architectures import CONFIGS, builder_name
from keras_preact.networks.building import ResNet, check_top
from keras_preact.networks.carried import carry_part
from keras_preact.networks.graph import deep_enough
from keras_preact.zoo import index
from keras_preact.zoo.metadata import Metadata
from keras_preact.zoo.resolving import Found, of_repository, resolve

_DOCSTRING = """Builds {name}: {what}.

    Args:
        include_top: whether to end with global average pooling and a dense layer, named "predictions".
        weights: None for random ones (default), a tag that `list_weights("{name}")` names{such},
            "hf://owner/name" or "hf://owner/name@revision" for a repository of the Hugging Face Hub that
            `push_to_hub` wrote or timm published, or a path to a .weights.h5 or .keras file. The bare name of a data
            set stands for our weights or else the best that others published, "cifar10_tf2cv" for those of that zoo,
            which are fetched when they are first used, compared with the hash it publishes, and bring its layout.
        input_tensor: a Keras tensor to start from; default a new `keras.Input`.
        input_shape: (height, width, channels), or (channels, height, width) if the image data format is
            "channels_first"; height and width may be None and are at least {stride}, and with weights channels None
            are theirs; for another number the first kernel is adapted, with a warning. Default: {size}x{size}x3, or
            the size that converted weights tell, and any height and width where `include_top` is False.
        pooling: without the top, None for the last feature map of shape (batch, height, width, channels), "avg" or
            "max" for features of shape (batch, channels).
        classes: outputs of the dense layer; default those of the weights, or {classes}. With another number than the
            weights have, all but the dense layer is loaded, with a warning that names it.
        classifier_activation: of the dense layer; None for logits.
        name: of the model.

    Returns:
        A functional `keras.Model` of built-in layers. With weights by tag or from the Hub it has the attributes
        `preprocessing`, what `preprocess_input` takes, of the size of the input, and `labels`, what
        `decode_predictions` takes; they are None where they are not known.

    Raises:
        ValueError: arguments that contradict each other, a size that the strides do not allow, weights that do not
            exist, are damaged, or do not fit.
        OSError: weights that cannot be had as they were published.

    Example:

    >>> model = kp.{name}(weights={tag!r})
    >>> model.output_shape
    (None, {classes})

    Reference: {reference}.
    """


def _builder(name):
    config, default = CONFIGS[name], name.lower()
    size = config.input_size[0]
    what = f"the {config.depth}-layer network for {size}x{size} images, of {config.unit} units"

    def build(
        include_top: bool = True,
        weights: str | os.PathLike | None = None,
        input_tensor: Any = None,
        input_shape: tuple | None = None,
        pooling: str | None = None,
        classes: int | None = None,
        classifier_activation: Any = "softmax",
        name: str = default,
    ) -> keras.Model:
        return _build(
            build.__name__, weights, config, include_top=include_top, input_tensor=input_tensor,
            input_shape=input_shape, pooling=pooling, classes=classes, classifier_activation=classifier_activation,
            name=name,
        )

    build.__name__ = build.__qualname__ = name
    tag = next((weight.tags[0] for weight in index.of(name)), None)
    build.__doc__ = _DOCSTRING.format(
        name=name, what=what, tag=tag, such=f', such as "{tag}"' if tag else "", stride=config.stride, size=size,
        classes=config.default_classes,
        reference=(
            'He et al., "Deep Residual Learning for Image Recognition", CVPR 2016' if config.order == "original"
            else 'He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016, Fig. 4(e) and appendix'
        ),
    )
    return build


def _build(architecture, weights, config, classes, **arguments):
    """Builds the network of `config`, or in the layout of `weights`: None, what `resolve` takes, or a `Found`."""
    top = arguments["include_top"]
    check_top(top, arguments["pooling"], classes)
    if weights is None:
        return ResNet(config, classes=classes, **arguments)
    found = weights if isinstance(weights, Found) else resolve(weights, architecture, config)
    layers, known = files.read(found.path()), found.known
    if top and known and known.preprocessing and arguments["input_tensor"] is arguments["input_shape"] is None:
        arguments["input_shape"] = known.preprocessing.input_shape
    arguments["input_shape"] = files.completed(arguments["input_shape"], layers)
    trained = files.classes(layers)
    if top and classes is None:
        classes = trained
    new_head = top and (trained is None or classes != trained)
    files.check_size(found.config or config, layers, found.address)
    model = ResNet(found.config or config, classes=classes, **arguments)
    channels, wanted = files.channels(layers), model.get_layer("stem_conv").kernel.shape[2]
    if channels and channels != wanted:
        layers = files.adapted(layers, wanted)
        warnings.warn(
            f"{architecture}: the weights were trained on images of {channels} channels, and the first kernel was "
            f"adapted to {wanted}: its channels are summed for one, and else repeated and scaled. Train it before use.",
            stacklevel=3,
        )
    own = model
    if arguments["input_tensor"] is not None:
        with deep_enough(found.config or config):
            own = keras.Model(arguments["input_tensor"], model.outputs)  # without what comes before
    files.assign(own, layers, repr(os.fspath(found.address)), keep_head=new_head)
    model.origin = found.origin(architecture)
    if known:
        inside = known.preprocessing and known.preprocessing.of_input(own.input_shape[1:])
        model.preprocessing = inside and for_model(inside, model)
        if model.preprocessing != inside:
            carry_part(model, inside)
        model.labels = None if new_head else LABELS.get(known.labels, known.labels)
    if new_head:
        had = f"{trained} classes" if trained else "no such layer"
        warnings.warn(
            f"{architecture}: all layers but {files.HEAD!r} were loaded from {found.address!r}. That layer was "
            f"initialised at random, for {model.output_shape[-1]} classes where the weights have {had}: train it "
            "before use.",
            stacklevel=3,
        )
    return model


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
PreActResNet10 = _builder("PreActResNet10")
PreActResNet12 = _builder("PreActResNet12")
PreActResNet14 = _builder("PreActResNet14")
PreActResNet16 = _builder("PreActResNet16")
PreActResNet18 = _builder("PreActResNet18")
PreActResNet26 = _builder("PreActResNet26")
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
ResNet10 = _builder("ResNet10")
ResNet12 = _builder("ResNet12")
ResNet14 = _builder("ResNet14")
ResNet16 = _builder("ResNet16")
ResNet18 = _builder("ResNet18")
ResNet26 = _builder("ResNet26")
ResNet34 = _builder("ResNet34")
ResNet50 = _builder("ResNet50")
ResNet101 = _builder("ResNet101")
ResNet152 = _builder("ResNet152")
ResNet200 = _builder("ResNet200")
ResNet269 = _builder("ResNet269")


def create_model(name: str, **arguments: Any) -> keras.Model:
    """Builds a network by its name in any case, with the tag of its weights behind a dot, as `timm.create_model` does.

    Args:
        name: of a builder, such as "preactresnet50", or with a tag, "preactresnet50.imagenet".
        **arguments: of the builder.

    Returns:
        What the builder returns.

    Raises:
        ValueError: no builder of that name, or weights both in `name` and beside it; as the builder.
        OSError: as the builder.

    Example:

    >>> model = kp.create_model("preactresnet20.cifar10", classes=5)
    """
    if not isinstance(name, str):
        raise ValueError(f"`name` must be a text, as list_models() has them. Received: {name!r}")
    builder, _, tag = name.partition(".")
    builder = {known.lower(): known for known in CONFIGS}.get(builder.lower(), builder)
    check_choice("name", builder, CONFIGS)
    if tag and "weights" in arguments:
        raise ValueError(
            f"Give weights behind the dot or as `weights`. Received: {name!r} and {arguments['weights']!r}"
        )
    if tag:
        arguments["weights"] = tag
    return globals()[builder](**arguments)


def from_hub(repository: str, **arguments: Any) -> keras.Model:
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

    >>> model = kp.from_hub("owner/name")
    >>> probabilities = model.predict(kp.preprocess_input(images[:1], model), verbose=0)
    >>> kp.decode_predictions(probabilities, 1, model)[0][0][0]
    'cat'
    """
    found = of_repository(repository)
    known: Any = found.known  # a `Metadata`, or an `About` of converted weights
    architecture = known.architecture if isinstance(known, Metadata) else builder_name(known.config)
    defaults = dict.fromkeys(("pooling", "classes", "input_tensor", "input_shape")) | {"include_top": True}
    if architecture in CONFIGS:
        defaults["name"] = architecture.lower()
    if arguments.get("input_tensor") is None and known.preprocessing:
        defaults["input_shape"] = known.preprocessing.input_shape
    return _build(architecture, found, known.config, **defaults | arguments)
