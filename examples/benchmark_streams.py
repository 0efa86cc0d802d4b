"""How fast photographs are read and augmented, beside a pipeline as one writes it by hand.

    python examples/benchmark_streams.py photographs

Takes a folder of class folders of JPEG files. The pipeline beside has the same crops, but no colours, takes new random
numbers in every run, and reads JPEG files alone. All contestants go through one epoch in turn, in one process; printed
are images/s, median and range over the rounds, and the ratios within each round.
"""
import argparse
import dataclasses
import statistics
import time

import tensorflow as tf

from keras_preact import augmentation, datasets, recipes

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder")
parser.add_argument("--batch", type=int, default=64, help="images (default: 64)")
parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default: 5)")
options = parser.parse_args()


def scale_aspect(shape):
    """Returns (top, left, height, width) of a random crop."""
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        shape, tf.zeros((1, 0, 4)), area_range=augmentation.AREAS, aspect_ratio_range=augmentation.ASPECTS,
        max_attempts=augmentation.ATTEMPTS, use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], size[:2]], 0)


def scale_jitter(shape):
    """As `scale_aspect`."""
    side = tf.cast(tf.reduce_min(shape[:2]), "float32") / tf.random.uniform((), *augmentation.SCALES)
    side = tf.cast(tf.round(side), "int32")
    corner = tf.cast(tf.random.uniform((2,)) * tf.cast(shape[:2] - side + 1, "float32"), "int32")
    return tf.concat([corner, [side, side]], 0)


def by_hand(window):
    mean, std = (255 * tf.constant(values) for values in (data.preprocessing.mean, data.preprocessing.std))

    def example(path, label):
        encoded = tf.io.read_file(path)
        image = tf.io.decode_and_crop_jpeg(encoded, window(tf.io.extract_jpeg_shape(encoded)), channels=3)
        image = tf.image.resize(image, data.preprocessing.size, "bicubic", antialias=True)
        return (tf.image.random_flip_left_right(image) - mean) / std, tf.one_hot(label, len(data.labels))

    paths = [str(path) for path in data.train.paths]
    dataset = tf.data.Dataset.from_tensor_slices((paths, data.train.labels)).shuffle(len(paths))
    dataset = dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(options.batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def stream(name):
    recipe = dataclasses.replace(recipes.find(name), epochs=1, batch_size=options.batch)
    return data.training(recipe, seed=0)["x"]


def images_per_second(batches):
    start = time.perf_counter()
    images = sum(len(targets) for _, targets in batches)
    return images / (time.perf_counter() - start)


def spread(values, digits):
    median, *ends = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{median} ({' to '.join(ends)})"


data = datasets.load(options.folder)
pairs = {"imagenet_torch": scale_aspect, "imagenet_paper": scale_jitter}
contestants = {recipe: (stream(recipe), by_hand(window)) for recipe, window in pairs.items()}
speeds = {recipe: [] for recipe in contestants}
for run in range(options.rounds + 1):
    for recipe, pair in contestants.items():
        measured = [images_per_second(batches) for batches in pair]
        if run:  # the first round traces, and reads the files into the cache of the system
            speeds[recipe].append(measured)
for recipe, measured in speeds.items():
    ours, theirs = zip(*measured)
    ratios = [a / b for a, b in measured]
    print(f"{recipe}: {spread(ours, 0)} images/s; by hand {spread(theirs, 0)}; ratio {spread(ratios, 2)}")
