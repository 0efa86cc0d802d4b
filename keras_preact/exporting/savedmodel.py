"""SavedModels for TF Serving: pixels or encoded images in, probabilities and labels out."""
import json

import numpy as np

from keras_preact._support import atomic
from keras_preact._support.checks import check_choice, is_count
from keras_preact._support.paths import local
from keras_preact.data.preprocessing import normalize, to_data_format
from keras_preact.exporting import preparation
from keras_preact.version import __version__

SIGNATURES = ("serving_default", "serving_bytes", "features")
KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic", "lanczos": "lanczos3"}
LABELS, METADATA = "labels.txt", "metadata.json"
ORIENTATION = 0x0112  # a tag of EXIF
WARMUP = "tf_serving_warmup_requests"


def export_savedmodel(
    model, path, version=None, signatures=SIGNATURES, preprocessing=None, labels=None, top=5, overwrite=False,
    activation=None,
):
    """Writes a SavedModel that TF Serving serves as it is, with preprocessing and labels inside.

    It loads with TensorFlow alone. Its signatures, where n is any number of images:

    - "serving_default" takes `images`, uint8 of shape (n, height, width, channels), of any height and width. They are
      resized and cropped at their centre as `load_image` does, and normalized. It returns `probabilities` (n, classes)
      as float32 and, of the `top` best classes, best first, `top_classes`, `top_labels` and `top_probabilities`.
    - "serving_bytes" takes `image_bytes`, n strings that are JPEG, PNG, WebP, BMP or GIF files (of an animated GIF, the
      first image); a JPEG is turned upright as its EXIF data say. It returns the same, and `valid`, which is false
      where a string is no image or is damaged: there probabilities are 0, classes -1 and labels "", and the other
      images get what they get without it.
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

    Returns:
        An `Exported`; its path is that of the version.

    Raises:
        ValueError: something that is missing, does not fit, or exists already.
        OSError: a folder that cannot be written to.

    Example:

    >>> keras_preact.export_savedmodel(keras_preact.PreActResNet20(weights="cifar10"), "models/preact")
    """
    for signature in signatures:
        check_choice("signatures", signature, SIGNATURES)
    if not is_count(top):
        raise ValueError(f"`top` must be a positive integer. Received: {top!r}")
    classifies = tuple(signatures) != ("features",)
    ready = preparation.prepare(model, preprocessing, labels, classifies, activation=activation)
    target = _target(local("path", path), version, overwrite)
    import tensorflow as tf

    with atomic.staged(target.parent) as staged:
        new = staged / target.name
        (staged / LABELS).write_text("".join(f"{label}\n" for label in ready.labels or ()), encoding="utf-8")
        metadata = ready.metadata | {"keras_preact": __version__, "tensorflow": tf.__version__}
        (staged / METADATA).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
        module = tf.Module()
        module.variables_ = [variable.value for variable in ready.network.variables]
        module.assets = [tf.saved_model.Asset(str(staged / name)) for name in (LABELS, METADATA)]
        functions = _functions(ready, top)
        functions = {name: functions[name] for name in signatures}
        tf.saved_model.save(module, str(new), functions)
        samples = _samples(ready.preprocessing)
        _write_warmup(new / "assets.extra" / WARMUP, target.parent.name, functions, samples[:1])
        exported = preparation.Exported(
            "savedmodel", target, preparation.size_of(new), _disagreement(new, ready, signatures, samples)
        )
        preparation.check(exported, ready.tolerance)
        atomic.publish(new, target, overwrite)
    return exported


def _target(base, version, overwrite):
    """Returns the folder of the version that is to be written."""
    if base.exists() and not base.is_dir():
        raise ValueError(f"`path` must be a folder of versions, and {base} is a file.")
    if version is None:
        versions = [int(child.name) for child in base.glob("*") if child.name.isdecimal()]
        return base / str(max(versions, default=0) + 1)
    if not is_count(version):
        raise ValueError(f"`version` must be a positive integer. Received: {version!r}")
    preparation.check_free(base / str(version), overwrite)
    return base / str(version)


def _functions(ready, top):
    """Returns the `tf.function` of each signature."""
    import tensorflow as tf

    preprocessing, channels = ready.preprocessing, len(ready.preprocessing.mean)
    pixels = tf.TensorSpec((None, None, None, channels), "uint8", "images")
    of_network = tf.TensorSpec((None, *preprocessing.size, channels), "uint8", "images")

    @tf.function(input_signature=[of_network])
    def network(images):
        x = to_data_format(normalize(images, preprocessing, "channels_last"), tf.transpose)
        return {name: tf.cast(value, "float32") for name, value in ready.network(x, training=False).items()}

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
        images, valid = _decode(image_bytes, preprocessing)
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
    corner, size = (size - crop) // 2, tf.cast(size, "float64")
    for axis in (1, 0):  # Pillow rounds to uint8 between them, too
        if preprocessing.interpolation == "nearest":
            centres = tf.cast(tf.range(crop[axis]) + corner[axis], "float64") + 0.5
            images = tf.gather(images, tf.cast(centres * (before[axis] / size[axis]), "int32"), axis=axis + 1)
            continue
        # Only the crop is computed: to resize all of a very long image would take any amount of memory.
        this = tf.range(2) == axis
        images = tf.raw_ops.ScaleAndTranslate(
            images=images, size=tf.where(this, crop, tf.shape(images)[1:3]),
            scale=tf.where(this, tf.cast(size / before, "float32"), 1.0),
            translation=tf.where(this, -tf.cast(corner, "float32"), 0.0),
            kernel_type=KERNELS[preprocessing.interpolation], antialias=True,
        )
        images = tf.cast(tf.clip_by_value(tf.floor(images + 0.5), 0, 255), "uint8")
    return tf.ensure_shape(images, (None, *preprocessing.size, len(preprocessing.mean)))


def _decode(encoded, preprocessing):
    """Returns (images of the network's size, black ones for what cannot be decoded; whether each could be)."""
    import tensorflow as tf

    from keras_preact.data import augmentation

    channels = len(preprocessing.mean)
    blank = tf.zeros((*preprocessing.size, channels), "uint8"), False

    def decode(file, orientation):
        image = tf.cond(
            tf.io.is_jpeg(file),
            # The default is faster, and other pixels than Pillow's.
            lambda: tf.io.decode_jpeg(file, channels, dct_method="INTEGER_ACCURATE"),
            lambda: augmentation.decode(file, channels),
        )
        image = _turned(tf.ensure_shape(image, (None, None, channels)), orientation)
        return _fit(image[None], preprocessing)[0], True

    def or_else(dataset, value):
        # The way of TensorFlow's graphs to go on after an error.
        return dataset.ignore_errors().concatenate(tf.data.Dataset.from_tensors(value)).take(1)

    def decode_or_blank(file):
        file = tf.data.Dataset.from_tensors(file)
        return or_else(tf.data.Dataset.zip(file, or_else(file.map(_orientation), 1)).map(decode), blank)

    images = tf.data.Dataset.from_tensor_slices(encoded).interleave(
        decode_or_blank, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return images.batch(tf.size(encoded, "int64")).get_single_element()


def _orientation(file):
    """Returns what the EXIF data of a JPEG file say, 1 to 8; it fails where there are none."""
    import tensorflow as tf

    data = tf.cast(tf.io.decode_raw(tf.strings.substr(file, 0, 65_536), "uint8"), "int32")
    marker = list(b"Exif\0\0")
    head = tf.signal.frame(data[:1024], len(marker), 1)
    tiff = data[tf.where(tf.reduce_all(head == marker, 1))[0, 0] + len(marker):]

    def number(digits, count):
        places = tf.range(count)  # Intel's order, or Motorola's
        return tf.reduce_sum(digits * 256 ** tf.where(tiff[0] == ord("I"), places, places[::-1]), -1)

    directory = tiff[number(tiff[4:8], 4):]
    entries = tf.reshape(directory[2:2 + 12 * number(directory[:2], 2)], (-1, 12))
    return tf.boolean_mask(number(entries[:, 8:10], 2), number(entries[:, :2], 2) == ORIENTATION)[0]


def _turned(image, orientation):
    """Returns an image upright that has this EXIF orientation."""
    import tensorflow as tf

    def one_of(*orientations):
        return tf.reduce_any(orientation == list(orientations))

    image = tf.cond(one_of(5, 6, 7, 8), lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    return image[::tf.where(one_of(3, 4, 7, 8), -1, 1), ::tf.where(one_of(2, 3, 6, 7), -1, 1)]


def _samples(preprocessing):
    """Returns two uint8 images, larger than the network's, of gradual and of random pixels."""
    shape = *(side + 8 for side in preprocessing.size), len(preprocessing.mean)
    gradual = np.indices(shape).sum(0) * 255 / (sum(shape) - 3)
    return np.stack([gradual, np.random.default_rng(0).integers(0, 256, shape)]).astype("uint8")


def _disagreement(folder, ready, signatures, samples):
    """Returns the largest difference from the Keras model of any signature of the SavedModel in `folder`."""
    import tensorflow as tf

    served = tf.saved_model.load(str(folder)).signatures
    expected = ready.expected(_fit(tf.constant(samples), ready.preprocessing).numpy())
    differences = []
    for name in signatures:
        if name == "serving_bytes":
            files = [tf.io.encode_png(image).numpy() for image in samples]
            outputs = served[name](tf.constant([files[0], files[1][:-20], *files[1:]]))
            keep = np.array([0, 2])
        else:
            outputs, keep = served[name](tf.constant(samples)), slice(None)
        found = {key: outputs[key].numpy()[keep] for key in outputs if key in expected}
        differences.append(preparation.disagreement(found, expected))
    return max(differences)


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
