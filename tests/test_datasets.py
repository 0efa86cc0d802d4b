"""Data from arrays, .npz files, folders and TensorFlow Datasets, and its augmentation."""
import dataclasses
import functools
import os
import re

import keras
import numpy as np
import pytest
from PIL import Image

from keras_preact.data import arrays as arrays_room, datasets
from keras_preact.data.batches import TrainingBatches
from keras_preact.data.mixing import crop_and_flip, cut_mix, cut_out, erase, mix, mix_up
from keras_preact.training.recipes import Recipe

RECIPE = Recipe("tiny", "a test", epochs=1, batch_size=16, schedule="cosine", padding=0)


def arrays(n=64, classes=4):
    x = np.broadcast_to(np.arange(n, dtype="uint8")[:, None, None, None], (n, 4, 4, 3))
    return {"x_train": x, "y_train": np.arange(n) % classes, "x_test": x[:8], "y_test": np.arange(8)[:, None] % classes}


def test_arrays():
    data = datasets.load(arrays())
    assert data.labels == ("0", "1", "2", "3") and data.y_test.shape == (8,)
    # Pixel values 0 to 63 with equal frequency: mean 31.5, variance (64^2 - 1) / 12.
    assert data.preprocessing.mean == (round(31.5 / 255, 4),) * 3
    assert data.preprocessing.std == (round((4095 / 12) ** 0.5 / 255, 4),) * 3
    assert data.preprocessing.size == (4, 4)


@pytest.mark.parametrize("kind", [tuple, list])
def test_pairs_as_keras_has_them(kind):
    whole = arrays()
    pairs = kind([(whole["x_train"], whole["y_train"]), kind([whole["x_test"], whole["y_test"]])])
    assert datasets.load(pairs).digest() == datasets.load(whole).digest()


def test_npz_of_a_known_data_set_takes_its_labels_and_statistics(tmp_path):
    np.savez(tmp_path / "cifar10.npz", **arrays(classes=10))
    data = datasets.load(tmp_path / "cifar10.npz")
    assert data.labels[3] == "cat" and data.preprocessing.mean == (0.4914, 0.4822, 0.4465)


@pytest.mark.parametrize("change, pattern", [
    ({"y_test": None}, "must hold x_train, y_train, x_test, y_test. arrays has no y_test"),
    ({"x_train": np.ones((64, 4, 4, 3))}, "x_train must be images.* before any.*float64 of shape .* from 1 to 1 in"),
    ({"x_train": np.full((64, 4, 4, 3), -2.0)}, "of floats from 0 to 255.* from -2 to -2 in"),
    ({"x_train": np.full((64, 4, 4, 3), 300, "uint16")}, "of uint8 or of floats.* Received: uint16 .* from 300 to 300"),
    ({"y_train": np.zeros(63, int)}, r"a label for each of the 64 images.*\(63,\)"),
    ({"y_train": np.zeros(64)}, "a label.*float64"),
    ({"y_train": np.array(["cat"] * 64)}, "Labels must be numbers or names in all of arrays"),
    ({"y_train": np.array(["a", "b"] * 32), "y_test": np.array(["a"] * 6 + ["c", "d"])},
     r"Labels must be among a, b. Received: c as y_test\[6\] in arrays, and 1 more"),
    ({"y_train": np.eye(4)[[0, 1, 2, 3] * 16] * 2}, r"a label .* Received: float64 of shape \(64, 4\)"),
    ({"x_test": np.zeros((8, 5, 4, 3), "uint8")}, r"one shape.*Received: \(4, 4, 3\) and \(5, 4, 3\) in arrays"),
    ({"x_test": np.zeros((8, 4, 4, 1), "uint8")}, r"one shape.*Received: \(4, 4, 3\) and \(4, 4, 1\)"),
    ({"x_test": np.zeros((0, 4, 4, 3), "uint8"), "y_test": np.zeros(0, int)}, r"x_test .*one or more.*\(0, 4, 4, 3\)"),
    ({"x_train": np.zeros((0, 4, 4, 3), "uint8"), "y_train": np.zeros(0, int)}, "x_train .*one or more"),
    ({"y_train": np.array([255, *range(63)]) % 256}, "without gaps. Received: no image of class 63, and 255 as"),
    ({"y_train": np.array([10**9] + [0] * 63)}, "without gaps. Received: no image of class 1, and 1000000000 as the"),
    ({"y_train": np.full(64, -1)}, "between 0 and 0. Received: -1"),
    ({"class_names": ["a", "b", "c"]}, r"between 0 and 2. Received: 3 as y_train\[3\]"),
    ({"class_names": ["a", "b", "a", "c"]}, "class_names must be a text for each class, no two the same"),
    ({"class_names": [1, 2, 3, 4]}, "class_names must be a text for each class"),
    ({"y_test": np.array([0, 1, 9, 0, 0, -1, 0, 0])}, r"between 0 and 3. Received: 9 as y_test\[2\] .*, and 1 more"),
])
def test_arrays_that_do_not_belong_together_are_refused(change, pattern):
    given = {k: v for k, v in (arrays() | change).items() if v is not None}
    with pytest.raises(ValueError, match=pattern):
        datasets.load(given)


@pytest.mark.parametrize("key", ["class_names", "label_names"])
def test_classes_may_have_names_and_then_no_training_images(key):
    data = datasets.load(arrays() | {key: ["a", "b", "c", "d", "e"]})
    assert data.labels == tuple("abcde")


@pytest.mark.parametrize("kind", ["U", "S", "O"])
def test_labels_may_be_names(kind, tmp_path):
    names = np.array(["cat", "ant", "dog", "bee"])
    given = arrays()
    given |= {key: names[given[key].reshape(-1)].astype(kind) for key in ("y_train", "y_test")}
    if kind == "O":
        given = {key: value.tolist() if value.dtype == object else value for key, value in given.items()}
    data = datasets.load(given)
    assert data.labels == ("ant", "bee", "cat", "dog")
    assert data.y_train[:5].tolist() == [2, 0, 3, 1, 2] and data.y_test.tolist() == [2, 0, 3, 1, 2, 0, 3, 1]
    data = datasets.load(given | {"class_names": [*"dcba", *names]})  # in that order
    assert data.y_train[:4].tolist() == [4, 5, 6, 7]


def test_labels_may_be_one_hot_and_images_floats():
    whole, given = datasets.load(arrays()), arrays()
    given |= {key: np.eye(4, dtype="float32")[given[key].reshape(-1)] for key in ("y_train", "y_test")}
    given |= {key: given[key] + np.float32(0.4) for key in ("x_train", "x_test")}
    assert datasets.load(given).digest() == whole.digest()


class Pairs(keras.utils.PyDataset):
    """Batches of three."""

    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels = images, labels

    def __len__(self):
        return -(-len(self.images) // 3)

    def __getitem__(self, i):
        return self.images[3 * i:3 * i + 3], self.labels[3 * i:3 * i + 3]


def iterated(images, labels):
    return [(image, label) for image, label in zip(images, labels)].__iter__()


def of_tensorflow(images, labels):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(5)


@pytest.mark.parametrize("kind", [Pairs, iterated, of_tensorflow])
def test_data_sets_that_fit_takes_are_taken(kind):
    given = arrays()
    train, test = ((given[f"x_{part}"], given[f"y_{part}"].reshape(-1)) for part in ("train", "test"))
    assert datasets.load((kind(*train), kind(*test))).digest() == datasets.load(given).digest()
    alone = datasets.load(kind(*test), known=tuple("abcd"))
    assert (alone.train_images, alone.test_images, alone.preprocessing) == (0, 8, None)
    assert alone.labels == ("0", "1", "2", "3")
    with pytest.raises(ValueError, match="`data` must be .* two data sets of images and labels"):
        datasets.load(kind(*test))


def test_the_folders_of_keras_name_their_classes(tmp_path):
    pytest.importorskip("tensorflow")
    for label, value in (("dark", 10), ("light", 200)):
        for i in range(4):
            photo(tmp_path / label / f"{i}.png", (value + i,) * 3, (5, 6))
    given = {"image_size": (6, 5), "shuffle": False, "verbose": False}
    whole = [
        keras.utils.image_dataset_from_directory(tmp_path, label_mode=mode, **given) for mode in ("int", "categorical")
    ]
    data = datasets.load(whole)
    assert data.labels == ("dark", "light") and data.y_test.tolist() == [0] * 4 + [1] * 4
    assert data.x_train[:, 0, 0, 0].tolist() == [10, 11, 12, 13, 200, 201, 202, 203]


@pytest.mark.parametrize("one_hot", [False, True])
def test_two_data_sets_are_joined_by_the_names_of_their_classes(one_hot):
    class Batches(keras.utils.PyDataset):
        def __init__(self, names, labels):
            super().__init__()
            self.class_names, self.labels = names, np.eye(3)[labels] if one_hot else np.array(labels)

        def __len__(self):
            return 1

        def __getitem__(self, i):
            return np.zeros((len(self.labels), 4, 4, 3), "uint8"), self.labels

    train = Batches(["a", "b", "c"], [0, 1, 2])
    data = datasets.load((train, Batches(["c", "a", "b"], [0, 1, 2, 0])))  # c a b c
    assert (data.labels, data.y_test.tolist()) == (("a", "b", "c"), [2, 0, 1, 2])
    for pair in ((train, Batches(None, [2, 0])), (Batches(None, [0, 1, 2]), Batches(["c", "a", "b"], [2, 0]))):
        assert datasets.load(pair).y_test.tolist() == [2, 0]  # where one has no names there is nothing to join by
    with pytest.raises(ValueError, match="the same `class_names`. Received: .*'a', 'b', 'c'.* and .*'a', 'b', 'd'"):
        datasets.load((train, Batches(["a", "b", "d"], [0, 1, 2])))


def test_data_sets_of_other_things_are_refused():
    tf = pytest.importorskip("tensorflow")
    given = arrays()
    endless = of_tensorflow(given["x_test"], given["y_test"]).repeat()
    with pytest.raises(ValueError, match=r"`data` must end, and this data set repeats itself: give its .take"):
        datasets.load((endless, endless))
    with pytest.raises(ValueError, match=r"must yield \(images, labels\). Received: EagerTensor"):
        datasets.load((tf.data.Dataset.from_tensor_slices(given["x_test"]),) * 2)
    with pytest.raises(ValueError, match="must have one size, and be one or more"):
        datasets.load((iter([(np.zeros((2, 4, 4, 3)), [0, 1]), (np.zeros((2, 5, 4, 3)), [0, 1])]), iter([])))


def test_test_images_suffice_where_the_classes_are_known(tmp_path):
    given = {key: value for key, value in arrays().items() if "test" in key}
    known = ("d", "c", "b", "a")
    np.savez(tmp_path / "test.npz", **given)
    for source in (given, tmp_path / "test.npz", (given["x_test"], given["y_test"])):
        data = datasets.load(source, known=known)
        assert (data.train_images, data.test_images, data.labels) == (0, 8, ("0", "1", "2", "3"))
    data = datasets.load((given["x_test"], np.array([*"abcdabcd"])), known=known)  # by name
    assert data.labels == known and data.y_test.tolist() == [3, 2, 1, 0] * 2
    with pytest.raises(ValueError, match="has no x_train, y_train"):
        datasets.load(given)
    with pytest.raises(ValueError, match=r"among d, c, b, a. Received: e as y_test\[7\]"):
        datasets.load((given["x_test"], np.array([*"abcdabce"])), known=known)


def test_files_that_hold_no_arrays_are_refused(tmp_path):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **arrays())
    whole = path.read_bytes()
    np.save(tmp_path / "one.npy", np.zeros(3))
    cases = {
        whole[:-40]: "cannot be read as an .npz", whole[:60] + bytes(80) + whole[140:]: "cannot be read as an .npz",
        b"": "cannot be read as an .npz", b"hello" * 9: "cannot be read as an .npz",
        (tmp_path / "one.npy").read_bytes(): "holds one array, as np.save writes it",
    }
    for content, message in cases.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"data.npz {message}"):
            datasets.load(path)
    np.savez(path, **arrays() | {"y_test": np.array([None] * 8)})
    with pytest.raises(ValueError, match="data.npz cannot be read as an .npz file of plain arrays"):
        datasets.load(path)
    for wrong in ((1, 2), ((1, 2), 3), np.zeros(3), None):
        with pytest.raises(ValueError, match=r"`data` must be \(x_train, y_train\), .* of these arrays, two data sets"):
            datasets.load(wrong)


def test_targets_take_a_row_for_each_image_of_a_batch_and_no_table():
    classes = 50_000  # of which a table would take 10 GB
    names = [f"class {i}" for i in range(classes)]
    data = datasets.load(arrays() | {"y_train": np.arange(64) + 49_000, "class_names": names})
    recipe = dataclasses.replace(RECIPE, label_smoothing=0.1, batch_size=4)
    batches = TrainingBatches(data, recipe, seed=0)
    targets = batches[0][1]
    assert targets.shape == (4, classes) and targets.dtype == "float32"
    assert sorted(set(targets.ravel().tolist())) == [np.float32(0.1 / classes), np.float32(0.9 + 0.1 / classes)]
    assert (targets.argmax(1) >= 49_000).all()
    x, y = data.validation(3)["validation_data"][2]
    assert x.shape == (2, 4, 4, 3) and y.shape == (2, classes) and y[0, 6 % 4] == y[1, 7 % 4] == 1 and y.sum() == 2


def test_hold_out_takes_training_images_at_even_distances():
    data = datasets.load(arrays()).hold_out(16)
    assert data.x_test[:, 0, 0, 0].tolist() == list(range(0, 64, 4))
    assert data.x_train[:6, 0, 0, 0].tolist() == [1, 2, 3, 5, 6, 7] and len(data.x_train) == len(data.y_train) == 48
    with pytest.raises(ValueError, match="Of 48 training images some must be left.*Received: 48"):
        data.hold_out(48)


def photo(path, colour, size=(12, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_a_folder_keeps_every_fifth_image_for_testing(tmp_path):
    for label, colour in (("roses", (200, 0, 0)), ("asters", (0, 0, 200))):
        for i in range(10):
            photo(tmp_path / label / f"{i}.jpg", colour, (10 + i, 20))
    data = datasets.load(tmp_path, (8, 8))
    assert data.labels == ("asters", "roses")
    assert (len(data.x_train), len(data.x_test)) == (16, 4) and data.x_train.shape[1:] == (8, 8, 3)
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert ((x[:, 4, 4, 0] > 100) == (y == 1)).all()


@pytest.mark.parametrize("train, held", [
    ("train", "test"), ("train", "val"), ("Training", "Valid"), ("TRAIN", "validation"),
])
def test_a_folder_with_a_split_keeps_it(tmp_path, train, held):
    for i, part in enumerate((train, train, held)):
        for label in ("a", "b"):
            photo(tmp_path / part / label / f"{i}.png", (9, 9, 9))
    data = datasets.load(tmp_path, (8, 8))
    assert (len(data.x_train), len(data.x_test)) == (4, 2)


@pytest.mark.parametrize("make", [
    lambda path: path.mkdir(), os.mkfifo, lambda path: path.symlink_to("nowhere"),
], ids=["folder", "pipe", "broken link"])
def test_class_folders_with_other_things_than_files_are_refused(tmp_path, make):
    for label in ("a", "b"):
        for i in range(5):
            photo(tmp_path / label / f"{i}.png", (9, 9, 9))
    make(tmp_path / "b" / "x.png")
    with pytest.raises(ValueError, match=r"hold image files alone; .*b/x.png is a folder, a pipe or a broken"):
        datasets.load(tmp_path, (8, 8))


def listed(path, lines, headings="file,label,split"):
    path.write_text("\n".join([headings, *lines]) + "\n", encoding="utf-8-sig")
    return path


def test_a_csv_file_lists_images(tmp_path):
    for i in range(10):
        photo(tmp_path / "images" / f"{i}.png", (20 * i,) * 3)
    rows = [f'images/{i}.png,"{"bee, wild" if i % 2 else "ant"}"' for i in range(10)]
    data = datasets.load(listed(tmp_path / "bugs.csv", rows, "file,label"), (4, 4))
    assert (data.name, data.labels) == ("bugs", ("ant", "bee, wild")) and "every fifth" in data.notes[0].lower()
    assert data.x_test[:, 0, 0, 0].tolist() == [160, 180] and data.y_test.tolist() == [0, 1]
    split = [f"{row},{'Train' if i < 6 else 'valid'}" for i, row in enumerate(rows)]
    data = datasets.load(listed(tmp_path / "bugs.csv", split), (4, 4))
    assert data.x_train[:, 0, 0, 0].tolist() == [0, 40, 80, 20, 60, 100] and data.y_test.tolist() == [0, 0, 1, 1]
    alone = datasets.load(listed(tmp_path / "test.csv", split[7:8]), known=("bee, wild", "cat", "ant"))
    assert alone.labels == ("bee, wild", "cat", "ant") and list(alone.test) == [(tmp_path / "images/7.png", 0)]


@pytest.mark.parametrize("lines, headings, message", [
    (["a.png,x"], "path,label", "must have the columns file and label, .* not in line 2 of"),
    (["a.png,x", "a.png"], "file,label", "not in line 3 of"),
    ([], "file,label", "has no images"),
    (["a.png,x,train", "a.png,x,tset"], "file,label,split", "must have train or test. Received: 'tset' in line 3"),
    (["a.png,x,"], "file,label,split", "must have train or test. Received: ''"),
    (["b.png,x,train"], "file,label,split", "must have paths relative to .* There is no .*b.png"),
    (["a.png,x,train"], "file,label,split", "images to train and to test with"),
    (["a.png,x,train", "a.png,y,test"], "file,label,split", "The class y of bugs has no images to train with"),
])
def test_csv_files_that_list_no_images_are_refused(lines, headings, message, tmp_path):
    photo(tmp_path / "a.png", (9, 9, 9))
    with pytest.raises(ValueError, match=message):
        datasets.load(listed(tmp_path / "bugs.csv", lines, headings))


def test_a_csv_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match="none.csv does not exist"):
        datasets.load(tmp_path / "none.csv")
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe\x00file")
    with pytest.raises(ValueError, match="bad.csv cannot be read as a CSV file in UTF-8"):
        datasets.load(tmp_path / "bad.csv")


def test_a_folder_of_test_images_suffices_where_the_classes_are_known(tmp_path):
    for label in ("ant", "cat"):
        photo(tmp_path / "Val" / label / "0.png", (9, 9, 9))
    data = datasets.load(tmp_path, known=("cat", "bee", "ant"))
    assert [label for _, label in data.test] == [0, 2] and data.train_images == 0
    assert datasets.load(tmp_path, known=("bee", "ant")).labels == ("ant", "cat")  # of another network


def test_unreadable_images_are_counted_and_named(tmp_path):
    for label in ("a", "b"):
        for i in range(5):
            photo(tmp_path / label / f"{i}.png", (9, 9, 9))
    for name in ("x.png", "y.txt"):
        (tmp_path / "b" / name).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"2 files of .* cannot be read as images; remove them:\n  .*x.png\n  .*y.txt"):
        datasets.load(tmp_path, (8, 8))


def test_empty_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold a folder of images for each class"):
        datasets.load(tmp_path, (8, 8))
    photo(tmp_path / "a" / "0.png", (9, 9, 9))
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match="The class b of .* has no images to train with"):
        datasets.load(tmp_path, (8, 8))


@pytest.mark.parametrize("name", ["my data", "./missing", "missing.zip", "n\udcc3", "mnist/none"])
def test_unknown_data_is_refused_in_one_line(name):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError, match=re.escape(f"no TensorFlow data set named {name!r}.") + "$"):
        datasets.load(name)


def test_unknown_data_is_refused(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError, match="no .npz file, no folder and no TensorFlow data set named 'cifar1000'"):
        datasets.load("cifar1000")
    with pytest.raises(ValueError, match="none.npz does not exist"):
        datasets.load(tmp_path / "none.npz")


def test_an_unprepared_tensorflow_data_set_says_how_to_prepare_it(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr(tfds, "builder", functools.partial(tfds.builder, data_dir=tmp_path))
    with pytest.raises(ValueError, match=r"'cifar10' is not prepared in .*tfds.load\('cifar10'\)"):
        datasets.load("cifar10")


def test_tensorflow_data_sets_are_read_offline():
    """On a machine that has it: the real CIFAR-10, whose first test images are a cat and two ships."""
    tfds = pytest.importorskip("tensorflow_datasets")
    if not tfds.builder("cifar10").data_path.exists():
        pytest.skip("CIFAR-10 is not prepared: python -c \"import tensorflow_datasets as tfds; tfds.load('cifar10')\"")
    data = datasets.load("cifar10")
    assert (len(data.x_train), len(data.x_test)) == (50_000, 10_000)
    assert np.bincount(data.y_test).tolist() == [1000] * 10
    mean, std = arrays_room._statistics(data.x_train)
    np.testing.assert_allclose(mean, data.preprocessing.mean, atol=2e-4)
    np.testing.assert_allclose(std, data.preprocessing.std, atol=2e-4)


@pytest.mark.parametrize("padding, offsets", [(0, 1), (1, 9), (3, 49)])
def test_crops_and_flips_are_windows_of_the_padded_image(padding, offsets):
    images = np.arange(1, 2 * 5 * 6 + 1, dtype="float32").reshape(2, 5, 6, 1)
    pads = padding, padding
    windows = {
        window.tobytes(): (n, t, s, f)
        for n, padded in enumerate(np.pad(images, ((0, 0), pads, pads, (0, 0))))
        for t in range(2 * padding + 1) for s in range(2 * padding + 1) for f in (False, True)
        for window in [padded[t:t + 5, s:s + 6][:, ::-1 if f else 1]]
    }
    assert len(windows) == 2 * 2 * offsets
    seen = set()
    for seed in range(1000):
        for n, crop in enumerate(crop_and_flip(images, padding, np.random.default_rng(seed))):
            assert windows[crop.tobytes()][0] == n
            seen.add(crop.tobytes())
    assert seen == set(windows)  # every offset, flipped and not


def test_cutout_is_a_square_around_a_point_of_the_image():
    areas = set()
    for seed in range(100):
        image = cut_out(np.ones((1, 6, 6, 2)), 4, np.random.default_rng(seed))[0]
        rows, columns = np.nonzero(image[..., 0] == 0)
        assert (image[rows.min():rows.max() + 1, columns.min():columns.max() + 1] == 0).all()
        areas.add(len(rows))
    assert max(areas) == 16 and min(areas) == 4  # whole inside; a quarter in a corner


@pytest.mark.parametrize("side, spans", [
    (3, {(0, 1), (0, 2), (1, 3), (2, 4), (3, 4)}),
    (4, {(0, 1), (0, 2), (0, 3), (1, 4), (2, 4)}),
])
def test_cutout_is_centred(side, spans):
    """From row c - side // 2 on: 3 rows are c and its neighbours, 4 one more before it. Each of 5 rows may be c."""
    rows = set()
    for seed in range(100):
        image = cut_out(np.ones((1, 5, 5, 1)), side, np.random.default_rng(seed))[0]
        for zeros in np.nonzero(image[..., 0] == 0):
            rows.add((int(zeros.min()), int(zeros.max())))
    assert rows == spans


def test_no_batch_draws_what_the_order_of_the_epoch_drew(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "keras_preact.data.batches.crop_and_flip",
        lambda images, padding, rng: drawn.append(rng.permutation(64).tolist()) or images,
    )
    batches = TrainingBatches(datasets.load(arrays()), RECIPE, seed=3, epoch=2)
    for i in range(len(batches)):
        batches[i]
    assert len({*map(tuple, drawn), tuple(batches._order[1].tolist())}) == 5


def test_a_digest_is_of_every_image_and_label(tmp_path):
    digest = datasets.load(arrays()).digest()
    assert digest == datasets.load(arrays()).digest()
    for part, values in arrays().items():
        changed = np.array(values)
        changed[3] = changed[2]
        assert datasets.load(arrays() | {part: changed}).digest() != digest
    for label in ("a", "b"):
        for i in range(5):
            photo(tmp_path / label / f"{i}.png", (9, 9, 9))
    digest = datasets.load(tmp_path).digest()
    assert digest == datasets.load(tmp_path).digest()
    photo(tmp_path / "b" / "4.png", (9, 9, 9), (20, 20))
    assert datasets.load(tmp_path).digest() != digest


def test_mixup_mixes_targets_as_it_mixes_images():
    targets = np.eye(8, dtype="float32")
    images, mixed = mix_up(targets.reshape(8, 8, 1, 1), targets, 1.0, np.random.default_rng(2))
    np.testing.assert_array_equal(images.reshape(8, 8), mixed)
    np.testing.assert_allclose(mixed.sum(1), 1, rtol=1e-6)
    assert len(np.unique(np.round(mixed[mixed > 0], 5))) <= 3  # the factor, the rest, and 1 for an image with itself


def test_cutmix_takes_as_much_of_the_target_as_of_the_image():
    """Image i has the value i everywhere, so that what it became tells the other image and its share."""
    n, shares = 8, set()
    for seed in range(60):
        images = np.broadcast_to(np.arange(n, dtype="float32")[:, None, None, None], (n, 6, 5, 1))
        found, targets = cut_mix(images, np.eye(n, dtype="float32"), 1.0, np.random.default_rng(seed))
        for i, (image, target) in enumerate(zip(found[..., 0], targets)):
            np.testing.assert_allclose(target, np.bincount(image.ravel().astype(int), minlength=n) / 30, atol=1e-6)
            rows, columns = np.nonzero(image != i)
            if len(rows):  # one whole rectangle
                assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            shares.add(len(rows))
        assert images[3].max() == images[3].min() == 3  # what came in stays
    # Of Beta(1, 1) the area of a rectangle that lies inside is uniform: small and large ones come.
    assert min(shares) <= 2 and max(shares) >= 20


def test_rectangles_of_cutmix_have_the_areas_of_the_paper():
    """Of Beta(1, 1) an area a is uniform, p its root. What of p lies inside around any place is p - p^2 / 4 on average.

    In both directions that is (p - p^2 / 4)^2 = a - a^1.5 / 2 + a^2 / 16, in the mean 1/2 - 1/5 + 1/48 = 0.321.
    """
    images, targets, shares = np.zeros((2, 80, 60, 1), "float32"), np.eye(2, dtype="float32"), []
    images[1] = 1
    for seed in range(3000):
        found, mixed = cut_mix(images, targets, 1.0, np.random.default_rng(seed))
        assert abs(found[0].mean() - mixed[0, 1]) < 1e-5
        shares.append(mixed[0, 1])
    # Half of the time an image is mixed with itself. The standard error is at most 0.5 / sqrt(3000) = 0.01.
    assert abs(np.mean(shares) - 0.321 / 2) < 0.015


def test_erasing_fills_rectangles_of_the_areas_of_the_paper_with_noise():
    images = np.full((2000, 20, 30, 2), 100, "float32")
    found = erase(images.copy(), 0.25, np.random.default_rng(0))
    areas = []
    for image in found:
        rows, columns = np.nonzero((image != 100).all(-1))
        if len(rows):
            assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            areas.append(len(rows) / 600)
    assert 0.22 < len(areas) / 2000 < 0.28  # 0.25, three deviations of which are 0.03
    assert 0.015 < min(areas) < 0.03 and 0.37 < max(areas) < 0.43 and 0.17 < np.mean(areas) < 0.23
    noise = found[found != 100]
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02


def erased(height, width, count):
    """Returns top, left, height and width of the rectangles erased in so many images, an array each."""
    images = erase(np.full((count, height, width, 1), 100, "float32"), 1, np.random.default_rng(0))
    places = [np.nonzero(image[..., 0] != 100) for image in images]
    return np.array([(y.min(), x.min(), np.ptp(y) + 1, np.ptp(x) + 1) for y, x in places if len(y)]).T


@pytest.mark.parametrize("height, width", [(12, 30), (30, 12)])
def test_erased_rectangles_lie_anywhere_in_images_of_any_shape(height, width):
    top, left, tall, wide = erased(height, width, 3000)
    # Half of the room that is left is before them; the standard error of a fraction is at most 0.5 / sqrt(3000) = 0.01.
    assert abs((top / (height - tall)).mean() - 0.5) < 0.02 and abs((left / (width - wide)).mean() - 0.5) < 0.02


def test_aspect_ratios_of_erased_rectangles_are_uniform_on_a_scale_of_logarithms():
    _, _, tall, wide = erased(60, 60, 3000)
    whole = tall * wide < 0.25 * 60**2  # so small that each aspect ratio fits
    aspects = np.log(tall / wide)[whole]
    # Between -log(1 / 0.3) and log(1 / 0.3), 1.2; the deviation of uniform numbers is their range over sqrt(12), 0.695.
    assert 1.1 < aspects.max() < 1.3 and -1.3 < aspects.min() < -1.1
    assert abs(aspects.mean()) < 0.05 and abs(aspects.std() - 0.695) < 0.03


def test_an_image_that_no_rectangle_fits_into_is_not_erased():
    """One pixel high, and two of a hundred are to be erased."""
    images = np.full((20, 1, 100, 1), 100, "float32")
    np.testing.assert_array_equal(erase(images.copy(), 1, np.random.default_rng(0)), images)


def test_of_mixup_and_cutmix_a_batch_takes_one():
    recipe, mixed = dataclasses.replace(RECIPE, mixup=1.0, cutmix=1.0), 0
    images = np.broadcast_to(np.arange(8, dtype="float32")[:, None, None, None], (8, 9, 9, 1))
    for seed in range(100):
        found, targets = mix(images, np.eye(8), recipe, np.random.default_rng(seed))
        np.testing.assert_allclose(found.mean((1, 2, 3)), targets @ np.arange(8), rtol=1e-5)
        mixed += np.all(np.ptp(found, (1, 2, 3)) == 0)  # no edge in any image
    assert 35 < mixed < 65


def test_an_epoch_holds_every_image_once_and_follows_from_the_seed():
    data = datasets.load(arrays())

    def epoch(batches):
        images = np.concatenate([batches[i][0][:, 0, 0, 0] for i in range(len(batches))])
        return np.round((images * data.preprocessing.std[0] + data.preprocessing.mean[0]) * 255).astype(int).tolist()

    batches = TrainingBatches(data, RECIPE, seed=3)
    first = epoch(batches)
    assert sorted(first) == list(range(64)) != first
    batches.on_epoch_end()
    second = epoch(batches)
    assert sorted(second) == list(range(64)) and first != second
    assert epoch(TrainingBatches(data, RECIPE, seed=3, epoch=1)) == second
    assert epoch(TrainingBatches(data, RECIPE, seed=4)) != first


def test_targets_are_one_hot_and_smoothed_as_asked():
    data = datasets.load(arrays())
    images, targets = TrainingBatches(data, RECIPE, seed=0)[0]
    assert targets.shape == (16, 4) and (targets.sum(1) == 1).all() and set(targets.ravel()) == {0, 1}
    value = np.round((images[:, 0, 0, 0] * data.preprocessing.std[0] + data.preprocessing.mean[0]) * 255).astype(int)
    np.testing.assert_array_equal(targets.argmax(1), value % 4)
    _, smooth = TrainingBatches(data, dataclasses.replace(RECIPE, label_smoothing=0.1), seed=0)[0]
    np.testing.assert_allclose(np.sort(smooth[0]), [0.025, 0.025, 0.025, 0.925], rtol=1e-6)


def test_test_batches_hold_every_image_once_in_order():
    data = datasets.load(arrays() | {"x_test": arrays(11)["x_train"], "y_test": arrays(11)["y_train"]})
    batches = data.validation(4)["validation_data"]
    parts = [batches[i] for i in range(len(batches))]
    assert [len(images) for images, _ in parts] == [len(targets) for _, targets in parts] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate([targets for _, targets in parts]).argmax(1), data.y_test)


def test_no_pass_waits_for_the_tuning_of_tf_data():
    pytest.importorskip("tensorflow")
    from keras.src.trainers.data_adapters import get_data_adapter

    data = datasets.load(arrays())
    for batches in (data.training(RECIPE, seed=0)["x"], data.validation(4)["validation_data"]):
        adapter = get_data_adapter(batches)
        try:
            assert adapter.get_tf_dataset().options().autotune.enabled is False
        finally:
            adapter.enqueuer.stop()
