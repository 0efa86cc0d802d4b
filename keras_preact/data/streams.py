"""Photographs of any size, read and decoded while they are used: from folders and from TensorFlow Datasets.

Training images go through `tf.data`; test images through Pillow, as those did that other zoos were measured on.
"""
import dataclasses
import functools
import hashlib
import io
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import keras
import numpy as np

from keras_preact.data.mixing import mix
from keras_preact.data.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
    load_image,
    load_views,
    normalize,
    to_data_format,
)

IMAGENET = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, (224, 224), 224 / 256, "bicubic")
UNDECODABLE = ("InvalidArgumentError", "UnknownError")
BUFFER = 4096  # encoded images that are shuffled at a time, from files in random order


@functools.cache
def tensorflow():
    """Returns TensorFlow, which leaves the GPUs alone where it only feeds another backend."""
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        with suppress(RuntimeError):  # TensorFlow was at work before
            tf.config.set_visible_devices([], "GPU")
    return tf


class Files:
    """Image files and the label of each."""

    def __init__(self, paths, labels):
        self.paths, self.labels = list(paths), list(labels)

    def __len__(self):
        return len(self.paths)

    def __iter__(self):
        """Yields (path, label)."""
        return zip(self.paths, self.labels)

    def described(self):
        """Yields what tells these images from others without reading them: names, sizes and labels of the files."""
        for path, label in self:
            yield (*Path(path).parts[-2:], os.path.getsize(path), int(label))

    def range(self, start, stop):
        return Files(self.paths[start:stop], self.labels[start:stop])

    def hold_out(self, images):
        """Returns (the rest, so many of them at even distances)."""
        held = held_out(len(self), images)
        return tuple(Files(*zip(*itertools.compress(self, mask))) for mask in (~held, held))

    def shuffled(self, seed):
        """Returns a `tf.data.Dataset` of what `read` takes, in an order that follows from `seed`."""
        tf = tensorflow()

        paths, labels = tf.constant(list(map(os.fsencode, self.paths))), tf.constant(self.labels, "int32")
        order = tf.random.experimental.stateless_shuffle(tf.range(len(self)), seed)
        return tf.data.Dataset.from_tensor_slices((tf.gather(paths, order), tf.gather(labels, order)))

    def read(self, example):
        """Returns (encoded image, label) as tensors."""
        path, label = example
        return tensorflow().io.read_file(path), label


class Records:
    """Part of a split of a prepared TensorFlow data set."""

    def __init__(self, builder, split, start=0, stop=None):
        self.builder, self.split, self.start = builder, split, start
        self.stop = builder.info.splits[split].num_examples if stop is None else stop

    def __len__(self):
        return self.stop - self.start

    def __iter__(self):
        """Yields (file of an encoded image, label)."""
        records = self._records(range(len(self._files())))
        for encoded, label in records.map(self.read).as_numpy_iterator():
            yield io.BytesIO(encoded), int(label)

    def described(self):
        """As `Files.described`, of the files of records."""
        for file in self._files():
            yield Path(file.filename).name, os.path.getsize(file.filename), file.skip, file.take

    def range(self, start, stop):
        return Records(self.builder, self.split, self.start + start, self.start + stop)

    def hold_out(self, images):
        """Returns (the rest, the last so many), which were shuffled when the data set was prepared."""
        rest = np.count_nonzero(~held_out(len(self), images))
        return self.range(0, rest), self.range(rest, len(self))

    def shuffled(self, seed):
        """As `Files.shuffled`: files in random order, 16 at a time, and `BUFFER` images in random order."""
        tf = tensorflow()

        order = tf.random.experimental.stateless_shuffle(tf.range(len(self._files())), seed)
        of_images = tf.random.stateless_uniform((), seed, maxval=2**31 - 1, dtype="int64")
        return self._records(order, cycle_length=16).shuffle(BUFFER, of_images, False)

    def read(self, record):
        """Returns (encoded image, label) as tensors."""
        import tensorflow_datasets as tfds

        image, label = self.builder.info.supervised_keys
        features = self.builder.info.features
        example = features.deserialize_example(record, decoders={image: tfds.decode.SkipDecoding()})
        return example[image], example[label]

    def _files(self):
        return self.builder.info.splits[f"{self.split}[{self.start}:{self.stop}]"].file_instructions

    def _records(self, order, cycle_length=1):
        tf = tensorflow()

        names, skip, take = zip(*((str(file.filename), file.skip, file.take) for file in self._files()))
        names, skip, take = tf.constant(names), tf.constant(skip, "int64"), tf.constant(take, "int64")
        return tf.data.Dataset.from_tensor_slices(order).interleave(
            lambda i: tf.data.TFRecordDataset(names[i]).skip(skip[i]).take(take[i]),
            cycle_length=cycle_length, num_parallel_calls=cycle_length, deterministic=True,
        )


@dataclasses.dataclass(frozen=True)
class Stream:
    """Photographs to train and test on, which are not held in memory.

    Args:
        name: of the data set.
        train, test: `Files` or `Records`.
        labels: the name of each class.
        preprocessing: how a test image is resized and cropped, and the mean and std of the channels.
        notes: what there is to know of what is measured on it, a sentence each.
    """

    name: str
    train: Files | Records
    test: Files | Records
    labels: tuple
    preprocessing: Preprocessing = IMAGENET
    notes: tuple = ()

    @property
    def train_images(self):
        return len(self.train)

    @property
    def test_images(self):
        return len(self.test)

    @property
    def image_shape(self):
        """(height, width, channels) of what a network is trained on."""
        return (*self.preprocessing.size, 3)

    def digest(self):
        """Returns a hash of the names, sizes and labels of all files, by which a run knows its data."""
        described = [list(part.described()) for part in (self.train, self.test)]
        return hashlib.blake2b(repr(described).encode(), digest_size=16).hexdigest()

    def hold_out(self, images):
        """As `Data.hold_out`."""
        train, test = self.train.hold_out(images)
        return dataclasses.replace(self, train=train, test=test, notes=())

    def training(self, recipe, seed, epoch=0, part=(0, 1)):
        """Returns what `fit` trains on from `epoch` to the last of the recipe: augmented images and targets.

        What an epoch holds follows from (seed, epoch); a last batch that is not full is left out.

        Args:
            recipe: a `Recipe`, for its batch size and augmentation.
            seed, epoch: integers.
            part: (index, count): which of so many equal parts of each batch.
        """
        tf = tensorflow()

        from keras_preact.data import augmentation

        window, side = augmentation.WINDOWS[recipe.augmentation], self.preprocessing.size[0]
        classes = len(self.labels)
        right, wrong = recipe.target_values(classes)
        mean, std = (255 * tf.constant(values) for values in (self.preprocessing.mean, self.preprocessing.std))
        index, count = part
        share = recipe.batch_size // count
        steps = self.train_images // recipe.batch_size

        def of_epoch(number):
            seeds = tf.stack([seed % 2**31, tf.cast(number, "int32")])
            examples = self.train.shuffled(seeds).take(steps * recipe.batch_size).enumerate()
            examples = examples.filter(lambda i, _: i % recipe.batch_size // share == index)
            return examples.map(lambda i, example: (augmentation.fold(seeds, i), example))

        def augment(seeds, example):
            encoded, label = self.train.read(example)
            image = augmentation.crop_encoded(encoded, window, side, seeds)
            if recipe.randaugment:
                image = augmentation.by_policy(image, recipe.randaugment, self.preprocessing.mean, seeds)
            matrix, offset = tf.eye(3), tf.zeros(3)
            if recipe.colour:
                matrix, offset = augmentation.jitter_colour(image, recipe.colour, seeds)
            if recipe.lighting:
                offset += 255 * augmentation.jitter_lighting(recipe.lighting, seeds)
            image = augmentation.change_colours(image, matrix / std, (offset - mean) / std)
            return image, tf.one_hot(label, classes, right, wrong)

        def by_numpy(number, images, targets):
            rng = np.random.default_rng([seed, epoch + number // steps, 1 + number % steps])  # as in memory
            return mix(images.copy(), targets, recipe, rng)

        def of_batch(number, batch):
            if recipe.mixes:
                mixed = tf.numpy_function(by_numpy, [number, *batch], ["float32"] * 2, stateful=False)
                batch = [tf.ensure_shape(new, old.shape) for new, old in zip(mixed, batch)]
            return to_data_format(batch[0], tf.transpose), batch[1]

        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        dataset = tf.data.Dataset.range(epoch, recipe.epochs).flat_map(of_epoch).map(augment, tf.data.AUTOTUNE)
        dataset = dataset.batch(share, drop_remainder=True).enumerate().map(of_batch, tf.data.AUTOTUNE)
        dataset = dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
        return {"x": dataset, "steps_per_epoch": steps}

    def validation(self, batch, part=(0, 1)):
        """Returns what `fit` measures on: normalized test images and one-hot targets, or one of equal parts of them."""
        tf = tensorflow()

        classes = len(self.labels)
        index, count = part
        size = self.test_images // count
        source = self.test.range(index * size, (index + 1) * size)

        def batches():
            for images, labels in read_views(source, "single", self.preprocessing, batch):
                images = normalize(images[:, 0], self.preprocessing, "channels_last")
                yield to_data_format(images), one_hot(labels, classes)

        dataset = tf.data.Dataset.from_generator(batches, output_signature=tuple(
            tf.TensorSpec((None, *shape), "float32") for shape in (self.preprocessing.input_shape, (classes,))
        ))
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(-(-size // batch))).prefetch(2)
        options = tf.data.Options()
        options.autotune.enabled = False  # as for the batches of `datasets`
        return {"validation_data": dataset.with_options(options)}

    def test_views(self, views, preprocessing, batch, crop=None):
        """Yields (uint8 images of shape (n, views, height, width, 3), labels), as `preprocessing` resizes them.

        They are cropped to `crop`, (height, width), default the size of `preprocessing`.

        Raises:
            ValueError: images that cannot be read; they are named and counted.
        """
        with naming_unreadable(self):
            yield from read_views(self.test, views, preprocessing, batch, crop)


def one_hot(labels, classes, right=1.0, wrong=0.0):
    """Returns float32 (labels, classes): a row for each label, `right` in its column and `wrong` in the others."""
    return np.where(np.asarray(labels)[:, None] == np.arange(classes), np.float32(right), np.float32(wrong))


def read_views(source, views, preprocessing, batch, crop=None):
    """Yields the views and labels of the images in `source`, `Files` or `Records`; they are decoded in parallel."""
    def read(example):
        return load_views(example[0], views, preprocessing, crop)

    examples = iter(source)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(examples, batch)):
            yield np.stack(list(pool.map(read, chunk))), np.array([label for _, label in chunk])


def held_out(count, images):
    """Returns a mask that chooses `images` of `count`, at even distances.

    Raises:
        ValueError: none would be left.
    """
    if not 0 < images < count:
        raise ValueError(f"Of {count} training images some must be left to train on. Received: {images} to hold out")
    mask = np.zeros(count, bool)
    mask[np.arange(images) * count // images] = True
    return mask


@contextmanager
def naming_unreadable(data):
    """Turns the error on an image of a `Stream` that cannot be decoded into one that names and counts all of these."""
    try:
        yield
    except Exception as error:
        # Pillow's errors on what is in a file have no number; TensorFlow's have names.
        if isinstance(data, Stream) and isinstance(error, OSError) and error.errno is None:
            _refuse(data, (data.train, data.test), _pillow_reads, "cannot be read as images; remove them")
        if isinstance(data, Stream) and type(error).__name__ in UNDECODABLE:
            _refuse(data, (data.train, data.test), _pillow_reads, "cannot be read as images; remove them")
            _refuse(data, (data.train,), _tensorflow_reads, "cannot be read by TensorFlow; save them again")
        raise


def _pillow_reads(file):
    try:
        load_image(file, IMAGENET)
        return True
    except OSError:
        return False


def _tensorflow_reads(file):
    tf = tensorflow()

    from keras_preact.data import decoding

    encoded = tf.io.read_file(os.fsencode(file))
    try:
        return not tf.io.is_jpeg(encoded) or len(decoding.decode(encoded)) > 0
    except tf.errors.OpError:
        return False


def _refuse(stream, parts, reads, why):
    """Raises an error that names the files that `reads` says no of; none if there are none."""
    files = [file for part in parts if isinstance(part, Files) for file in part.paths]
    progress = keras.utils.Progbar(len(files), unit_name="image")
    found = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, read in zip(files, pool.map(reads, files)):
            progress.add(1)
            found += [] if read else [file]
    if found:
        named = "\n  ".join(map(str, found[:20]))
        raise ValueError(f"{len(found)} files of {stream.name} {why}:\n  {named}")
