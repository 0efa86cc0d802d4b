"""Each importer against the zoo it imports from: random weights in the file that zoo publishes, and its logits."""
import dataclasses
import hashlib
import json
import re
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from helpers import images_like, outputs_of, randomize, relative_error, slow
from huggingface_hub import constants

import keras_preact as kp
from keras_preact.data.preprocessing import LABELS
from keras_preact.networks import costs
from keras_preact.networks.architectures import CONFIGS
from keras_preact.zoo import importers, index

torch = pytest.importorskip("torch")
import peers  # noqa: E402
import torch7  # noqa: E402

HERE = Path(__file__).parent
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
IMAGENET = (64, 128, 256, 512)


def cases(*names):
    """Every network in float64, all but the first among the slow tests, and the first in float32, too."""
    first, *others = names
    return pytest.mark.parametrize("name, dtype", [
        (first, "float32"), (first, "float64"), *(slow(name, "float64") for name in others),
    ])


@pytest.fixture(autouse=True)
def policy(request, dtype_policy):
    dtype_policy(getattr(request.node, "callspec", None) and request.node.callspec.params.get("dtype") or "float32")


def images_of(size, dtype="float32"):
    # Keras turns its inputs into float32 first, in float64, too.
    return images_like((size, size, 3)).astype(dtype)


def disagreement(source, file, images, expected, name=None, **network):
    model, report = importers.convert(source, file, name, classifier_activation=None, **network)
    assert report.tensors == sum(len(layer.weights) for layer in model.layers)
    assert report.parameters == model.count_params()
    error = relative_error(outputs_of(model, images), expected)
    print(f"{source}: {report.architecture}, {expected.dtype}: {error:.1e}")  # pytest -rP shows it
    return error


# The peers: each writes `file` and returns the images and its logits for them.

def timm_folder(folder, name="resnetv2_18", dtype="float32", **arguments):
    timm = peers.timm()
    model = peers.randomize(timm.create_model(name, **arguments)).to(getattr(torch, dtype))
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    images = images_of(64, dtype)
    return images, peers.logits(model, images)


def pytorchcv_file(file, name, dtype="float32"):
    provider = pytest.importorskip("pytorchcv.model_provider")
    model = peers.randomize(provider.get_model(name)).to(getattr(torch, dtype))
    torch.save(model.state_dict(), file)
    images = images_of(model.in_size[0], dtype)[:1]
    return images, peers.logits(model, images)


def keras_2(build, file, dtype="float32", save="save_weights"):
    """Writes the .h5 file of Keras 2, as which keras.applications and image-classifiers publish theirs."""
    tf_keras = pytest.importorskip("tf_keras")
    tf_keras.backend.set_floatx(dtype)
    try:
        model = build(tf_keras)
        randomize(model, seed=3)
        getattr(model, save)(file)
        # Their last layer is a softmax, or has one.
        head = next(layer for layer in reversed(model.layers) if layer.weights)
        kernel, bias = head.get_weights()
        images = images_of(64, dtype)
        features = tf_keras.Model(model.input, head.input)(images, training=False).numpy()
        return images, features @ kernel + bias
    finally:
        tf_keras.backend.set_floatx("float32")


def keras_applications(name="ResNet50V2"):
    return lambda tf_keras: getattr(tf_keras.applications, name)(
        weights=None, input_shape=(64, 64, 3), classes=10
    )


def image_classifiers(name="ResNet18"):
    def build(tf_keras):
        module = pytest.importorskip("classification_models.models.resnet")
        modules = {part: getattr(tf_keras, part) for part in ("backend", "layers", "models", "utils")}
        return getattr(module, name)(input_shape=(64, 64, 3), weights=None, classes=10, **modules)

    return build


def torch7_file(file, dtype="float32", units=(2, 2, 2, 2), widths=IMAGENET, **network):
    module = torch7.preresnet(units, widths, dtype=dtype, **network)
    torch7.save(file, module)
    images = images_of(224 if len(units) == 4 else 32, dtype)[:1]
    return images, torch7.evaluate(module, torch.as_tensor(images.transpose(0, 3, 1, 2))).numpy()


@cases("resnetv2_18", "resnetv2_50")
def test_timm(tmp_path, name, dtype):
    images, expected = timm_folder(tmp_path, name, dtype)
    assert disagreement("timm", tmp_path, images, expected) < TOLERANCE[dtype]


@cases("preresnet20_cifar10", "preresnet20_cifar100", "preresnet164bn_cifar10", "preresnet18", "preresnet50",
       "preresnet50b", "resnet20_cifar10", "resnet164bn_svhn", "resnet18", "resnet50", "resnet50b")
def test_pytorchcv(tmp_path, name, dtype):
    file = tmp_path / f"{name}-0123-456789ab.pth"
    assert disagreement("pytorchcv", file, *pytorchcv_file(file, name, dtype)) < TOLERANCE[dtype]


@cases("preresnet20_cifar10", "preresnet18", "preresnet50", "resnet20_svhn", "resnet50")
def test_tf2cv(tmp_path, tf2cv_network, name, dtype):
    images = images_of(32 if "_" in name else 224, dtype)[:1]
    file = tmp_path / f"{name}-0123-456789ab.tf2.h5"
    logits = tf2cv_network(name, images, file)
    assert disagreement("pytorchcv", file, images, logits) < TOLERANCE[dtype]


# Names of tf2cv's files as they are not written today; how they are changed, and whether they still tell everything.
def another_prefix(name, numbers):
    return "model_3/scope/" + name.partition("/")[2]


def no_scopes(name, numbers):
    return re.sub(r"^.*?(stage\d|init_block|post_activ|output1)/", r"\1/", re.sub(r"\b(stage\d+)/\1/", r"\1/", name))


def without_stages(name, numbers):
    return re.sub(r"^.*(?=unit\d)", f"scope_{numbers.setdefault(name, len(numbers))}/", name)


def only_numbers(name, numbers):
    number = numbers.setdefault(name.rpartition("/")[0], len(numbers))
    return f"layer_{number}/{name.rpartition('/')[2]}"


def no_words(name, numbers):
    return f"variable_{numbers.setdefault(name, len(numbers))}:0"


def unchanged(name, numbers):
    return name


@pytest.fixture(scope="module", params=["preresnet20_cifar10", "resnet20_svhn"])
def tf2cv_file(request, tmp_path_factory, tf2cv_network):
    file = tmp_path_factory.mktemp("tf2cv") / f"{request.param}-0123-456789ab.tf2.h5"
    return file, tf2cv_network(request.param, images_of(32), file)


def renamed(source, target, rename, group_order=None):
    """Copies a .h5 file of Keras 2 with other names of weights, and its groups in another order."""
    numbers = {}
    with h5py.File(source) as old, h5py.File(target, "w") as new:
        for key, value in old.attrs.items():
            new.attrs[key] = value
        groups = importers.files._names(old, "layer_names")
        new.attrs["layer_names"] = [name.encode() for name in (group_order or list)(groups)]
        for group in groups:
            names = importers.files._names(old[group], "weight_names")
            others = [rename(name, numbers) for name in names]
            new.create_group(group).attrs["weight_names"] = [name.encode() for name in others]
            for name, other in zip(names, others):
                new[group][other] = old[group][name][()]


@pytest.mark.parametrize("rename", [another_prefix, no_scopes, without_stages, only_numbers, no_words, unchanged])
@pytest.mark.parametrize("group_order", [list, reversed], ids=["as_written", "reversed"])
def test_tf2cv_files_whose_names_are_others(tmp_path, tf2cv_file, rename, group_order):
    source, expected = tf2cv_file
    file = tmp_path / source.name
    renamed(source, file, rename, group_order)
    if rename is no_words and group_order is reversed:
        with pytest.raises(ValueError, match="order and shape do not tell .* apart; nothing.*variable_.* of shape"):
            importers.convert("pytorchcv", file)
    else:
        assert disagreement("pytorchcv", file, images_of(32), expected) < 1e-4


def test_tensors_that_neither_names_nor_shapes_tell_apart_are_refused(tmp_path, tf2cv_file):
    source, _ = tf2cv_file
    file = tmp_path / source.name
    with h5py.File(source) as old, h5py.File(file, "w") as new:
        arrays = [array[()] for array in importers.files.h5(source).values()]
        new.attrs["layer_names"] = [b"all"]
        names = [f"variable_{i:03}:0" for i in range(len(arrays))]
        new.create_group("all").attrs["weight_names"] = [name.encode() for name in names]
        for name, array in zip(names, sorted(arrays, key=lambda array: array.shape)):
            new["all"][name] = array
        assert len(old.attrs["layer_names"]) == 2
    with pytest.raises(ValueError, match="order and shape do not tell .* apart; nothing was loaded. Tensors: "):
        importers.convert("pytorchcv", file)


def test_the_tensors_tell_the_family_where_the_name_of_the_file_does_not(tmp_path, tf2cv_file):
    source, expected = tf2cv_file
    name = source.name.removeprefix("pre") if source.name.startswith("pre") else f"pre{source.name}"
    assert disagreement("pytorchcv", source, images_of(32), expected, name=name) < 1e-4
    renamed(source, tmp_path / f"other_{name}", only_numbers)
    with pytest.raises(ValueError, match=r"By its name it is (PreAct)?ResNet20; .* 'preresnet...' .* 'resnet...'"):
        importers.convert("pytorchcv", tmp_path / f"other_{name}", name)


def test_tensors_of_no_known_naming_are_told_what_both_families_have(tf2cv_file, tmp_path):
    source, _ = tf2cv_file
    renamed(source, tmp_path / "mine.h5", only_numbers)
    families = r"preresnet\*, are features.init_block.*features.post_activ.bn.*resnet\*, are the same without"
    with pytest.raises(ValueError, match=f"mine.h5 has no tensor named as .*{families}.* Received: layer_0.kernel, .*"
                                         "give the `name`, such as 'preresnet20_cifar10'"):
        importers.convert("pytorchcv", tmp_path / "mine.h5")
    importers.convert("pytorchcv", tmp_path / "mine.h5", source.name)
    with pytest.raises(ValueError, match=f"The dict has no tensor .*{families}.*Give the `source`"):
        importers.convert("pytorchcv", {"conv1.weight": np.zeros((16, 3, 3, 3), "float32")})


@pytest.mark.parametrize("weight", [weight for weight in index.upstream() if weight.source == "pytorchcv"],
                         ids=lambda weight: weight.file.rpartition("/")[2].partition("-")[0])
def test_the_tensors_that_are_expected_of_a_published_file_make_its_network(weight):
    named = importers.pytorchcv._NAME.match(weight.file.rpartition("/")[2])
    expected = importers.pytorchcv._expected(CONFIGS[weight.architecture], bool(named["pre"]))
    original, large = not named["pre"], weight.dataset == "imagenet"
    layout = importers.pytorchcv._layout(large, original, "bottleneck" in CONFIGS[weight.architecture].unit, named)
    cost = costs.count(dataclasses.replace(CONFIGS[weight.architecture], **layout), classes=7)
    found = sum(np.prod([n or (3 if len(shape) == 4 else 7) for n in shape]) for shape in expected.values())
    assert found == cost.parameters + cost.statistics
    assert (named["data"] or "imagenet") == weight.dataset


def test_weights_of_tf2cv_by_their_tag(tmp_path, tf2cv_file, monkeypatch):
    """From the file of a mirror, which is a folder, to the network; then from the cache, without the mirror."""
    source, expected = tf2cv_file
    builder, tag, own, label = {
        "pre": (kp.PreActResNet20, "cifar10_tf2cv", ("cifar10_tf2cv",), "airplane"),
        "res": (kp.ResNet20, "svhn", ("svhn", "svhn_tf2cv"), "0"),
    }[source.name[:3]]
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KERAS_PREACT_MIRROR", f"file://{tmp_path}/mirror")
    weight = index.find(builder.__name__, tag)
    assert weight.tags == own and (weight.where, weight.size) == ("remote", None)
    with pytest.raises(OSError, match=rf"{weight.file[8:]}: the connection failed.*{weight.hash}"):
        builder(weights=tag)
    weight = dataclasses.replace(weight, hash=f"sha1:{hashlib.sha1(source.read_bytes()).hexdigest()}")
    monkeypatch.setattr(index, "upstream", lambda: (weight,))
    file = tmp_path / "mirror" / weight.file.removeprefix("https://")
    file.parent.mkdir(parents=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(source, file.name.removesuffix(".zip"))
    for _ in range(2):
        model = builder(weights=tag, classifier_activation=None)
        assert relative_error(outputs_of(model, images_of(32)), expected) < 1e-4
        assert model.preprocessing.mean == (0.4914, 0.4822, 0.4465) and model.labels[0] == label
        file.unlink(missing_ok=True)
    (path,) = [path for path in kp.pull(builder.__name__) if str(path).startswith(str(tmp_path))]
    assert (weight.where, weight.size) == ("cached", path.stat().st_size)
    with pytest.warns(UserWarning, match="all layers but 'predictions' were loaded"):
        assert builder(weights=tag, classes=7).output_shape == (None, 7)
    assert builder(weights=tag, include_top=False).output_shape == (None, None, None, 64)
    with pytest.raises(ValueError, match="'wrong'"):
        builder(weights="wrong")


CIFAR_NAMES = {"A": "resnet20-12fca82f.th", "B": "cifar100_resnet32-84213ce6.pt"}


@cases("A", "B")
def test_networks_of_torchvision_for_cifar(tmp_path, name, dtype):
    units, classes = {"A": (3, 10), "B": (5, 100)}[name]
    model = peers.randomize(peers.CifarResNet(units, name, classes)).to(getattr(torch, dtype))
    file, images = tmp_path / CIFAR_NAMES[name], images_of(32, dtype)
    state = {f"module.{key}": tensor for key, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.7}, file)
    assert disagreement("torchvision", file, images, peers.logits(model, images)) < TOLERANCE[dtype]
    shuffled = dict(sorted(model.state_dict().items(), key=lambda item: item[0][::-1]))
    assert disagreement("torchvision", shuffled, images, peers.logits(model, images)) < TOLERANCE[dtype]


@cases("resnet18", "resnet50")
def test_torchvision(tmp_path, name, dtype):
    model = peers.randomize(peers.timm().create_model(name)).to(getattr(torch, dtype))  # its names are torchvision's
    file, images = tmp_path / f"{name}-0123abcd.pth", images_of(64, dtype)
    torch.save(model.state_dict(), file)
    assert disagreement("torchvision", file, images, peers.logits(model, images)) < TOLERANCE[dtype]


@pytest.mark.parametrize("wrapper", ["state_dict", "net", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_what_training_scripts_wrap_around_a_state_dict_is_passed_over(wrapper, prefix):
    tensors = {f"{prefix}conv1.weight": torch.ones(2, 3), f"{prefix}model.bias": torch.zeros(4)}
    found = importers.files.state_dict({wrapper: tensors, "epoch": 3, "optimizer": {"state": {}}})
    assert found.keys() == {"conv1.weight", "model.bias"} and found["conv1.weight"].shape == (2, 3)


@pytest.mark.parametrize("save, dtype", [
    ("save_weights", "float32"), slow("save_weights", "float64"), ("save", "float32"),
])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
def test_keras_applications(tmp_path, save, dtype):
    file = tmp_path / "resnet50v2_weights_tf_dim_ordering_tf_kernels.h5"
    images, expected = keras_2(keras_applications(), file, dtype, save)
    assert disagreement("keras_applications", file, images, expected) < TOLERANCE[dtype]


@cases("ResNet18", "ResNet50")
def test_image_classifiers(tmp_path, name, dtype):
    file = tmp_path / f"{name.lower()}_imagenet_1000.h5"
    images, expected = keras_2(image_classifiers(name), file, dtype)
    assert disagreement("image_classifiers", file, images, expected) < TOLERANCE[dtype]


CIFAR = {"units": (3, 3, 3), "widths": (16, 32, 64), "imagenet": False}
TORCH7 = {
    "cifar_A": CIFAR | {"shortcut": "A"}, "cifar_B": CIFAR | {"shortcut": "B"}, "18": {},
    "50": {"units": (3, 4, 6, 3), "bottleneck": True},
}


@cases(*TORCH7)
def test_torch7(tmp_path, name, dtype):
    file = tmp_path / "resnet.t7"
    assert disagreement("torch7", file, *torch7_file(file, dtype, **TORCH7[name])) < TOLERANCE[dtype]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnetv2_34", "resnetv2_101", "resnetv2_152"])
def test_timm_deep(tmp_path, name):
    assert disagreement("timm", tmp_path, *timm_folder(tmp_path, name)) < TOLERANCE["float32"]


@pytest.mark.slow
@pytest.mark.parametrize("source, network", [
    ("keras_applications", keras_applications("ResNet152V2")), ("image_classifiers", image_classifiers("ResNet152")),
], ids=["keras_applications", "image_classifiers"])
def test_152_layers_of_keras_2(tmp_path, source, network):
    file = tmp_path / "weights.h5"
    assert disagreement(source, file, *keras_2(network, file)) < TOLERANCE["float32"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64"])
@pytest.mark.parametrize("name", ["preresnet200b", "preresnet1001_cifar10"])
def test_pytorchcv_deep(tmp_path, name, dtype):
    file = tmp_path / f"{name}-0123-456789ab.pth"
    assert disagreement("pytorchcv", file, *pytorchcv_file(file, name, dtype)) < TOLERANCE[dtype]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64"])
def test_resnet_200_of_torch7(tmp_path, dtype):
    file = tmp_path / "resnet-200.t7"
    images, expected = torch7_file(file, dtype, (3, 24, 36, 3), bottleneck=True)
    assert disagreement("torch7", file, images, expected) < TOLERANCE[dtype]


# Objects in place of files, and the formats of Keras 3.

@pytest.mark.parametrize("suffix", [None, ".weights.h5", ".keras"])
def test_a_keras_model_and_what_keras_3_saves_of_it(tmp_path, suffix):
    theirs = keras.applications.ResNet50V2(
        weights=None, input_shape=(64, 64, 3), classes=10, classifier_activation=None
    )
    randomize(theirs, seed=3)
    weights = theirs
    if suffix:
        weights = tmp_path / f"theirs{suffix}"
        (theirs.save if suffix == ".keras" else theirs.save_weights)(weights)
    images = images_of(64)
    assert disagreement("keras_applications", weights, images, outputs_of(theirs, images)) < 1e-4


def test_a_state_dict(tmp_path):
    timm = peers.timm()
    model = peers.randomize(timm.create_model("resnetv2_18", num_classes=7, in_chans=4))
    images = images_like((64, 64, 4))
    assert disagreement("timm", model.state_dict(), images, peers.logits(model, images)) < 1e-4


# A comparison that cannot fail tells nothing: other layouts disagree, or are refused for want of their tensors.

WRONG = 1e-3


@pytest.mark.parametrize("change", [{"stride_on": "last_unit"}, {"pool_padding": "zeros"}, {"epsilon": 1e-2}], ids=str)
def test_timm_in_another_layout_disagrees(tmp_path, monkeypatch, change):
    images, expected = timm_folder(tmp_path)
    monkeypatch.setattr(importers.timm, "LAYOUT", importers.timm.LAYOUT | change)
    assert disagreement("timm", tmp_path, images, expected) > WRONG


def test_timm_with_the_first_activation_in_the_stem_disagrees(tmp_path, monkeypatch):
    images, expected = timm_folder(tmp_path, "resnetv2_50")
    monkeypatch.setattr(importers.timm, "LAYOUT", importers.timm.LAYOUT | {"first_activation": "stem"})
    with pytest.raises(ValueError, match=r"stem_bn.weight: missing"):
        importers.convert("timm", tmp_path)
    names = importers.timm.LAYERS | {"stem_bn": "stages.0.blocks.0.norm1"}
    monkeypatch.setattr(importers.timm, "LAYERS", names)
    assert disagreement("timm", tmp_path, images, expected) > WRONG


@pytest.mark.parametrize("change", [
    {"stride_on": "conv3x3"}, slow({"pool_padding": "minus_infinity"}), slow({"epsilon": 1e-2}),
], ids=str)
def test_keras_applications_in_another_layout_disagrees(tmp_path, monkeypatch, change):
    file = tmp_path / "weights.h5"
    images, expected = keras_2(keras_applications(), file)
    monkeypatch.setattr(importers.keras_applications, "LAYOUT", importers.keras_applications.LAYOUT | change)
    assert disagreement("keras_applications", file, images, expected) > WRONG


@pytest.mark.parametrize("change, problem", [
    ({"stride_on": "last_unit"}, None),
    ({"epsilon": 1e-2}, None),
    ({"shortcut": "project_on_change"}, "stage1_unit1_sc.kernel: the network has no place"),
    ({"normalize_input": False}, "bn_data.beta: the network has no place"),
    ({"first_activation": "stem"}, "stage1_unit1_bn1.beta: the network has no place"),
], ids=str)
def test_image_classifiers_in_another_layout_disagrees(tmp_path, monkeypatch, change, problem):
    file = tmp_path / "weights.h5"
    images, expected = keras_2(image_classifiers(), file)
    monkeypatch.setattr(importers.image_classifiers, "LAYOUT", importers.image_classifiers.LAYOUT | change)
    if problem:
        with pytest.raises(ValueError, match=problem):
            importers.convert("image_classifiers", file)
    else:
        assert disagreement("image_classifiers", file, images, expected) > WRONG


def test_the_name_tells_where_pytorchcv_has_its_strides(tmp_path):
    file = tmp_path / "weights.pth"
    images, expected = pytorchcv_file(file, "preresnet50")
    with pytest.raises(ValueError, match="preresnet50 and preresnet50b, .*have the same tensors"):
        importers.convert("pytorchcv", file)
    assert disagreement("pytorchcv", file, images, expected, name="preresnet50") < 1e-4
    assert disagreement("pytorchcv", file, images, expected, name="preresnet50b") > WRONG


# What comes with the weights.

def test_images_for_a_converted_file_fit_its_network(tmp_path):
    theirs = keras.applications.ResNet50V2(weights=None, classes=1000)
    file = tmp_path / "r50.weights.h5"
    kp.convert("keras_applications", theirs, output=file)
    photo = HERE.parent / "examples" / "images" / "cat_0000.png"
    model = kp.PreActResNet50(weights=file)
    images = kp.preprocess_input(kp.load_image(photo, model.preprocessing), model.preprocessing)[None]
    assert images.shape == (1, 299, 299, 3) and images.min() >= -1 and images.max() <= 1
    assert kp.decode_predictions(model(images), weights=model.labels)[0][0][0] in LABELS["imagenet"]


def test_timm_tells_the_preprocessing_and_labels(tmp_path):
    timm_folder(tmp_path)
    _, report = importers.convert("timm", tmp_path)
    assert report.preprocessing == kp.Preprocessing((0.5,) * 3, (0.5,) * 3, (224, 224), 0.9, "bicubic")
    assert (report.architecture, report.classes, report.labels) == ("PreActResNet18", 1000, "imagenet")
    assert len(report.ignored) == 17 and all(name.endswith("num_batches_tracked") for name in report.ignored)
    for line in ("PreActResNet18 from timm: 11,", "layout: first_activation='unit', pool_padding='minus_infinity'"):
        assert line in str(report)
    config = json.loads((tmp_path / "config.json").read_text())
    names = {str(i): f"class {i}" for i in range(1000)}
    (tmp_path / "config.json").write_text(json.dumps(config | {"label_names": names}))
    _, report = importers.convert("timm", tmp_path)
    assert report.labels[10] == "class 10"


def test_a_builder_takes_a_converted_file(tmp_path):
    timm_folder(tmp_path)
    file = tmp_path / "r18.weights.h5"
    model, report = kp.convert("timm", tmp_path, output=file)
    ours = kp.PreActResNet18(weights=file)
    images = images_of(64)
    np.testing.assert_array_equal(outputs_of(kp.PreActResNet18(weights=file, input_shape=(64, 64, 3)), images),
                                  outputs_of(model, images))
    assert ours.input_shape == (None, 224, 224, 3)
    for network in (model, ours):
        assert network.preprocessing == report.preprocessing and network.labels == LABELS["imagenet"]
    assert kp.decode_predictions(np.eye(1000)[[134]], 1, weights="imagenet") == [[("crane (bird)", 1.0)]]
    with pytest.warns(UserWarning, match="all layers but 'predictions' were loaded"):
        assert kp.PreActResNet18(weights=file, classes=7).labels is None
    (tmp_path / "damaged.weights.h5").write_bytes(file.read_bytes()[:10_000])
    with pytest.raises(ValueError, match="damaged.weights.h5 cannot be read as Keras weights"):
        kp.PreActResNet18(weights=tmp_path / "damaged.weights.h5")
    with pytest.raises(ValueError, match="holds weights of PreActResNet18. Received: the builder PreActResNet34"):
        kp.PreActResNet34(weights=file)
