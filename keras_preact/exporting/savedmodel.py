"""SavedModels for TF Serving: pixels or encoded images in, probabilities and labels out."""
import errno
import json
import os
from collections.abc import Sequence

import keras

from keras_preact._support import atomic
from keras_preact._support.checks import check_choice, check_count
from keras_preact.data.preprocessing import REACH, Preprocessing, normalize, to_data_format
from keras_preact.exporting import preparation
from keras_preact.version import __version__

SIGNATURES = ("serving_default", "serving_bytes", "features")
KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic", "lanczos": "lanczos3"}
LABELS, METADATA = "labels.txt", "metadata.json"
MOST_PIXELS = 100_000_000  # of one encoded image: 300 MB as RGB
WARMUP = "tf_serving_warmup_requests"


def export_savedmodel(
    model: keras.Model,
    path: str | os.PathLike,
    version: int | None = None,
    signatures: Sequence[str] = SIGNATURES,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] | None = None,
    top: int = 5,
    overwrite: bool = False,
    activation: str | None = None,
    most_pixels: int = MOST_PIXELS,
) -> preparation.Exported:
    """Writes a SavedModel that TF Serving serves as it is, with preprocessing and labels inside.

    It loads with TensorFlow alone. Its signatures, where n is any number of images:

    - "serving_default" takes `images`, uint8 of shape (n, height, width, channels), of any height and width. They are
      resized and cropped at their centre as `load_image` does, and normalized. It returns `probabilities` (n, classes)
      as float32 and, of the `top` best classes, best first, `top_classes`, `top_labels` and `top_probabilities`.
    - "serving_bytes" takes `image_bytes`, n strings that are JPEG, PNG, WebP, BMP or GIF files, which are decoded as
      `load_image` does, EXIF data among them. It returns the same, and `valid`, which is false where a string is no
      image, is damaged, has more than `most_pixels`, or is what TensorFlow does not decode: TIFF, AVIF, animated WebP,
      compressed BMP. There probabilities are 0, classes -1 and labels "", and the other images get what they get
      without it.
    - "features" takes `images` as above, and returns `features`, what the classifier takes.

    What was written is read back and compared with `model`; where they differ by more than rounding nothing is left.

    Args:
        model: a network of the zoo, also with another head.
        path: of the folder of versions; its last part is the name under which the model is served.
        version: positive integer; default one more than the newest that is there, or 1.
        signatures: those that are written.
        preprocessing: a `Preprocessing`; default `model.preprocessing`, which weights of the zoo set.
        labels: the name of each class; default `model.labels`.
        top: how many of the best classes are named; all if there are fewer.
        overwrite: whether a version that is there already is replaced.
        activation: what turns the outputs of `model` into probabilities, as of `export`.
        most_pixels: that an image of "serving_bytes" may have, as its header says: 100 million take 300 MB.

    Returns:
        An `Exported`; its path is that of the version.

    Raises:
        ValueError: something that is missing, does not fit, or exists already.
        OSError: a folder that cannot be written to.

    Example:

    >>> exported = kp.export_savedmodel(kp.PreActResNet20(weights="cifar10"), "models/preact")
    >>> exported.path.name, exported.disagreement < 1e-5
    ('1', True)
    """
    for signature in signatures:
        check_choice("signatures", signature, SIGNATURES)
    check_count("top", top)
    check_count("most_pixels", most_pixels)
    preparation.require_backend()
    classifies = tuple(signatures) != ("features",)
    ready = preparation.prepare(model, preprocessing, labels, classifies, activation=activation)
    channels = len(ready.preprocessing.mean)
    if "serving_bytes" in signatures and channels not in (1, 3):
        raise ValueError(
            "Image files are decoded to one channel, grey, or to three. Received: a network of "
            f"{channels} channels; leave signature 'serving_bytes' out, as signatures=('serving_default', 'features')."
        )
    target = _target(preparation.target_of(path), version, overwrite)
    import tensorflow as tf

    with atomic.staged(target.parent) as staged:
        new = staged / target.name
        (staged / LABELS).write_text("".join(f"{label}\n" for label in ready.labels or ()), encoding="utf-8")
        metadata = ready.metadata | {"keras_preact": __version__, "tensorflow": tf.__version__}
        (staged / METADATA).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
        module = tf.Module()
        module.variables_ = [variable.value for variable in ready.network.variables]
        module.assets = [tf.saved_model.Asset(str(staged / name)) for name in (LABELS, METADATA)]
        functions = _functions(ready, top, most_pixels)
        functions = {name: functions[name] for name in signatures}
        tf.saved_model.save(module, str(new), functions)
        samples = preparation.samples((*(side + 8 for side in ready.preprocessing.size), channels))
        _write_warmup(new / "assets.extra" / WARMUP, target.parent.resolve().name, functions, samples[:1])
        differences = _differences(new, ready, signatures, samples)
        preparation.check("savedmodel", differences, ready.tolerance)
        exported = preparation.Exported("savedmodel", target, preparation.size_of(new), *differences)
        while not _published(new, exported.path, overwrite, asked=version is not None):
            exported = exported._replace(path=_target(target.parent, None, overwrite))
    return exported


def _published(new, target, overwrite, asked):
    """Renames `new` to `target`; returns False where another export took a number that was not `asked` for."""
    try:
        atomic.publish({new: target}, overwrite and asked)
    except OSError as error:
        if asked or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _target(base, version, overwrite):
    """Returns the folder of the version that is to be written."""
    if base.exists() and not base.is_dir():
        raise ValueError(f"`path` must be a folder of versions, and {base} is a file.")
    if version is None:
        versions = [int(child.name) for child in base.glob("*") if child.name.isdecimal()]
        return base / str(max(versions, default=0) + 1)
    check_count("version", version)
    preparation.check_free(base / str(version), overwrite)
    return base / str(version)


def _functions(ready, top, most_pixels):
    """Returns the `tf.function` of each signature."""
    import tensorflow as tf

    preprocessing, channels = ready.preprocessing, len(ready.preprocessing.mean)
    pixels = tf.TensorSpec((None, None, None, channels), "uint8", "images")
    of_network = tf.TensorSpec((None, *preprocessing.size, channels), "uint8", "images")

    @tf.function(input_signature=[of_network])
    def network(images):
        n = tf.shape(images)[0]
        x = to_data_format(normalize(_one_at_least(images), preprocessing, "channels_last"), tf.transpose)
        return {name: tf.cast(value[:n], "float32") for name, value in ready.network(x, training=False).items()}

    def classify(images):
        probabilities = network(images)["probabilities"]
        best, classes = tf.math.top_k(probabilities, min(top, len(ready.labels)))
        return {
            "probabilities": probabilities, "top_classes": classes, "top_probabilities": best,
            "top_labels": tf.gather(tf.constant(ready.labels), classes),
        }

    @tf.function(input_signature=[pixels])
    def serving_default(images):
        return classify(_fit(images, preprocessing))

    @tf.function(input_signature=[tf.TensorSpec((None,), "string", "image_bytes")])
    def serving_bytes(image_bytes):
        images, valid = _decode(image_bytes, preprocessing, most_pixels)
        outputs = classify(images)
        blank = {"probabilities": 0.0, "top_classes": -1, "top_probabilities": 0.0, "top_labels": ""}
        outputs = {name: tf.where(valid[:, None], value, blank[name]) for name, value in outputs.items()}
        return outputs | {"valid": valid}

    @tf.function(input_signature=[pixels])
    def features(images):
        return {"features": network(_fit(images, preprocessing))["features"]}

    return {"serving_default": serving_default, "serving_bytes": serving_bytes, "features": features}


def _fit(images, preprocessing):
    """Returns uint8 images (n, height, width, channels) resized and cropped as `load_image` does, within rounding."""
    import tensorflow as tf

    crop = tf.constant(preprocessing.size)
    before = tf.cast(tf.shape(images)[1:3], "float64")
    scale = tf.reduce_max(tf.cast(crop, "float64") / before) / preprocessing.crop
    size = tf.maximum(crop, tf.cast(tf.round(before * scale), "int32"))
    corner, ratio = tf.cast((size - crop) // 2, "float64"), before / tf.cast(size, "float64")
    # Only the crop is computed, and of what the kernels reach: to resize all of a very long image would take any amount
    # of memory.
    margin = REACH * tf.maximum(ratio, 1) + 1
    low = tf.maximum(tf.floor(corner * ratio - margin), 0)
    high = tf.minimum(tf.math.ceil((corner + tf.cast(crop, "float64")) * ratio + margin), before)
    (top, left), (bottom, right) = tf.unstack(tf.cast(low, "int32")), tf.unstack(tf.cast(high, "int32"))
    images = images[:, top:bottom, left:right]
    for axis in (1, 0):  # Pillow rounds to uint8 between them, too
        images = tf.transpose(images, (0, 2, 1, 3))  # what is resized comes second: columns, then rows
        if preprocessing.interpolation == "nearest":
            centres = tf.cast(tf.range(crop[axis]), "float64") + corner[axis] + 0.5
            images = tf.gather(images, tf.cast(centres * ratio[axis] - low[axis], "int32"), axis=1)
            continue
        n, length, *across = tf.unstack(tf.shape(images))
        # What lies across goes with the channels: the kernel would resize it, too, to what it is.
        lines = tf.raw_ops.ScaleAndTranslate(
            images=tf.reshape(images, (n, length, 1, tf.reduce_prod(across))), size=(preprocessing.size[axis], 1),
            scale=(tf.cast(1 / ratio[axis], "float32"), 1.0),
            translation=(tf.cast(low[axis] / ratio[axis] - corner[axis], "float32"), 0.0),
            kernel_type=KERNELS[preprocessing.interpolation], antialias=True,
        )
        lines = tf.cast(tf.clip_by_value(tf.floor(lines + 0.5), 0, 255), "uint8")
        images = tf.reshape(lines, (n, preprocessing.size[axis], *across))
    return tf.ensure_shape(images, (None, *preprocessing.size, len(preprocessing.mean)))


def _decode(encoded, preprocessing, most_pixels):
    """Returns (images of the network's size, black ones for what cannot be decoded; whether each could be)."""
    import tensorflow as tf

    from keras_preact.data import decoding

    def decode(file):
        image = decoding.decode(file, most_pixels)
        image = decoding.grey(image) if len(preprocessing.mean) == 1 else image
        return _fit(image[None], preprocessing)[0], True

    blank = tf.data.Dataset.from_tensors((tf.zeros((*preprocessing.size, len(preprocessing.mean)), "uint8"), False))

    def decode_or_blank(file):
        # The way of TensorFlow's graphs to go on after an error.
        return tf.data.Dataset.from_tensors(file).map(decode).ignore_errors().concatenate(blank).take(1)

    n, encoded = tf.size(encoded), _one_at_least(encoded)
    images = tf.data.Dataset.from_tensor_slices(encoded).interleave(
        decode_or_blank, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    images, valid = images.batch(tf.size(encoded, "int64")).get_single_element()
    return images[:n], valid[:n]


def _one_at_least(batch):
    """Returns a batch, or one blank example in place of none: neither oneDNN nor tf.data takes a batch of nothing."""
    import tensorflow as tf

    blank = tf.zeros((tf.maximum(1 - tf.shape(batch)[0], 0), *batch.shape[1:]), batch.dtype)
    return tf.concat([batch, blank], 0)


def _differences(folder, ready, signatures, samples):
    """Returns the largest `preparation.differences` from the Keras model of any signature of the SavedModel."""
    import tensorflow as tf

    served = tf.saved_model.load(str(folder)).signatures
    expected = ready.expected(_fit(tf.constant(samples), ready.preprocessing).numpy(), features=True)
    differences = []
    for name in signatures:
        if name == "serving_bytes":
            files = [tf.io.encode_png(image).numpy() for image in samples]
            outputs = served[name](tf.constant([files[0], files[1][:-20], *files[1:]]))
            keep = [0, *range(2, len(samples) + 1)]
        else:
            outputs, keep = served[name](tf.constant(samples)), slice(None)
        found = {key: outputs[key].numpy()[keep] for key in outputs if key in expected}
        differences.append(preparation.differences(found, expected))
    return tuple(map(max, zip(*differences)))


def _write_warmup(path, model, functions, samples):
    """Writes a `PredictionLog` for each signature, which TF Serving replays before it serves the model."""
    import tensorflow as tf

    path.parent.mkdir()
    inputs = {"images": samples, "image_bytes": [tf.io.encode_png(image).numpy() for image in samples]}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, function in functions.items():
            (spec,) = function.input_signature
            tensor = tf.make_tensor_proto(inputs[spec.name]).SerializeToString()
            # By hand, as TF Serving's protos come in a package of their own: PredictionLog.predict_log.request, its
            # model_spec with name and signature_name, and an entry of the map of its inputs.
            request = _field(1, _field(1, model.encode()) + _field(3, signature.encode()))
            request += _field(2, _field(1, spec.name.encode()) + _field(2, tensor))
            writer.write(_field(6, _field(1, request)))


def _field(number, value):
    """Returns a length-delimited field of a protobuf message."""
    length, size = b"", len(value)
    while size > 127:
        length += bytes([size % 128 + 128])
        size //= 128
    return bytes([number * 8 + 2]) + length + bytes([size]) + value
