"""Fetching from the Hugging Face Hub and publishing there, over HTTP: on loopback, or live where that is asked for."""
import dataclasses
import hashlib
import itertools
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import helpers
import hub_server
import huggingface_hub
import keras
import numpy as np
import pytest

import keras_preact as kp
from keras_preact import cli
from keras_preact.networks import files
from keras_preact.training import runs
from keras_preact.zoo import builders, hub, index, publishing

ROOT = Path(__file__).parent.parent
IMAGES = np.random.default_rng(3).integers(0, 256, (4, 8, 8, 3), dtype="uint8")
FILES = {
    "config.json", "metadata.json", "model.weights.h5", "keras_preact.json", "golden.npz", "README.md", "log.csv",
    "curve.png",
}
OWNER = hub_server.LIVE or "owner"
numbers = itertools.count()


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a finished training run of PreActResNet20 on twenty images of four classes."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 8, 8, 3), dtype="uint8"), np.arange(20) % 4
    np.savez(folder / "data.npz", x_train=images[:16], y_train=labels[:16], x_test=images[16:], y_test=labels[16:])
    recipe = kp.Recipe("test", "of the tests", epochs=1, batch_size=8)
    kp.train("PreActResNet20", folder / "data.npz", recipe, folder / "run", verbose=0)
    return folder / "run"


@pytest.fixture(params=["loopback", pytest.param("live", marks=pytest.mark.live)])
def repository(request):
    """The name of a repository that does not exist yet."""
    if (request.param == "live") != bool(hub_server.LIVE):
        pytest.skip(
            "KERAS_PREACT_LIVE_HUB asks for the live Hub" if hub_server.LIVE
            else "set KERAS_PREACT_LIVE_HUB=owner, and HF_TOKEN with write permission, for the live Hub"
        )
    name = f"{OWNER}/keras-preact-test-{os.getpid()}-{next(numbers)}"
    yield name
    huggingface_hub.HfApi().delete_repo(name, missing_ok=True)


@pytest.fixture(scope="session")
def loopback():
    if hub_server.LIVE:
        pytest.skip("the live Hub has no faults on demand")
    return hub_server.SERVER


@pytest.fixture
def server(loopback):
    del loopback.requests[:]
    return loopback


@pytest.fixture(scope="session")
def first_published(run):
    name = f"{OWNER}/keras-preact-test-{os.getpid()}-first"
    kp.push_to_hub(run, name, private=True)
    yield name
    huggingface_hub.HfApi().delete_repo(name)


@pytest.fixture
def published(first_published):
    """A repository that holds `run`; on loopback another for each test, of which nothing is cached."""
    if hub_server.LIVE:
        return first_published
    name = f"owner/published-{next(numbers)}"
    repositories = hub_server.SERVER.repositories
    repositories[name] = stored = hub_server.Repository()
    stored.commit("main", repositories[first_published].head())
    return name


def outputs(model, preprocessing):
    return keras.ops.convert_to_numpy(model(kp.preprocess_input(IMAGES, preprocessing)))


def cache_of(repository):
    return Path(os.environ["HF_HOME"], "hub", f"models--{repository.replace('/', '--')}")


def cached_files(repository):
    """The regular files in the cache of a repository, whole or half-written."""
    return [path for path in cache_of(repository).rglob("*") if path.is_file() and not path.is_symlink()
            and "blobs" in path.parts]


def one_line(excinfo, *parts):
    """Asserts that the command would print the error as one line, and that it has these parts and no secret."""
    text = str(excinfo.value)
    assert isinstance(excinfo.value, (ValueError, OSError)) and "\n" not in text
    for part in parts:
        assert part in text, text
    everything = "".join(traceback.format_exception(excinfo.value))
    assert "hf_owner" not in everything and "hf_wrong" not in everything


def test_a_run_is_published_as_one_commit_that_keras_opens(repository, run):
    published = kp.push_to_hub(run, repository, private=True)
    assert set(published.files) == FILES and re.fullmatch("[0-9a-f]{40}", published.commit)
    if hub_server.SERVER:
        stored = hub_server.SERVER.repositories[repository]
        assert list(stored.commits)[1:] == [published.commit]
        assert stored.head().keys() - {".gitattributes"} == FILES
        metadata = json.loads(stored.head()["keras_preact.json"].content)
        assert metadata["files"] == {
            name: hashlib.sha256(blob.content).hexdigest() for name, blob in stored.head().items()
            if name not in (".gitattributes", "keras_preact.json")
        }
    trained, record = runs.load_run(run)
    preprocessing = kp.Preprocessing(**record["data"]["preprocessing"])
    expected = outputs(trained, preprocessing)
    np.testing.assert_array_equal(outputs(keras.saving.load_model(f"hf://{repository}"), preprocessing), expected)

    model = kp.from_hub(repository)
    assert (model.name, model.preprocessing, model.labels) == ("preactresnet20", preprocessing, ("0", "1", "2", "3"))
    np.testing.assert_array_equal(outputs(model, model.preprocessing), expected)
    named = kp.PreActResNet20(weights=f"hf://{repository}@{published.commit}", input_shape=(8, 8, 3))
    np.testing.assert_array_equal(outputs(named, named.preprocessing), expected)

    again = kp.push_to_hub(run, repository, private=True)
    assert again.commit == published.commit
    assert huggingface_hub.HfApi().repo_info(repository).sha == published.commit


def test_a_branch_holds_another_network_than_main(repository, run):
    kp.push_to_hub(run, repository, private=True)
    config = helpers.tiny()
    model = helpers.build(config, (6, 6, 1), 2)
    model = keras.Model(model.input, keras.layers.Softmax()(model.output))
    preprocessing = kp.Preprocessing((0.5,), (0.25,), (6, 6))
    measured = {"error": 12.5, "images": 8, "split": "test", "crop": "6x6", "selection": "last epoch"}
    metadata = kp.Metadata("custom", config, preprocessing, ("a", "b"), "dots", measured)
    kp.push_to_hub(model, repository, metadata, revision="dots")
    dots = kp.from_hub(f"{repository}@dots")
    assert (dots.labels, dots.input_shape) == (("a", "b"), (None, 6, 6, 1))
    images = helpers.images_like((6, 6, 1))
    np.testing.assert_allclose(helpers.outputs_of(dots, images), helpers.outputs_of(model, images), atol=1e-6)
    assert kp.from_hub(repository).labels == ("0", "1", "2", "3")
    # What the network before left behind is not left beside the new one.
    files = huggingface_hub.HfApi().list_repo_files(repository, revision="dots")
    assert set(files) - {".gitattributes"} == FILES - {"log.csv", "curve.png"}


@pytest.mark.filterwarnings("ignore:.*all layers but 'predictions' were loaded:UserWarning")
def test_a_fine_tuned_network_is_published_as_not_measured(repository):
    model = kp.PreActResNet20(weights="cifar10", input_shape=(16, 16, 3), classes=3)
    with pytest.raises(ValueError, match="its `preprocessing` and `labels`. Received: preactresnet20 .* labels=None"):
        kp.push_to_hub(model, repository)
    published = kp.push_to_hub(model, repository, labels=["daisy", "rose", "tulip"], private=True)
    assert "# PreActResNet20 for 3 classes" in published.card and "was not measured" in published.card
    assert "% top-1" not in published.card and "model-index" not in published.card
    found = kp.from_hub(repository)
    assert (found.labels, found.preprocessing) == (("daisy", "rose", "tulip"), model.preprocessing)
    images = helpers.images_like((16, 16, 3))
    np.testing.assert_allclose(helpers.outputs_of(found, images), helpers.outputs_of(model, images), atol=1e-6)
    stored = hub.snapshot(repository).metadata
    assert (stored.measured, stored.dataset) == ({}, "")
    assert stored.made == {"base": "PreActResNet20(weights='cifar10')"} and "base_model" not in published.card
    again = kp.from_hub(repository, classes=2)
    card = kp.push_to_hub(again, "owner/other", labels=["daisy", "rose"], dry_run=True).card
    assert f"base_model: {repository}\n" in card and f'- base: "hf://{repository}@' in card
    assert json.loads(stored.to_json())["format"] == 2  # so that older versions ask for an upgrade
    outside = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    with pytest.raises(ValueError, match="A model without `metadata` must be a network of the zoo"):
        kp.push_to_hub(outside, repository, labels=["daisy", "rose", "tulip"])


def test_files_of_one_load_come_from_one_commit(published, server):
    stored = server.repositories[published]
    first = stored.branches["main"]
    kp.from_hub(published)
    resolved = [path for _, path in server.requests if "/resolve/" in path]
    assert resolved and all(f"/resolve/{first}/" in path for path in resolved)


def test_other_classes_keep_all_but_the_head(published):
    with pytest.warns(UserWarning, match="all layers but 'predictions' were loaded from 'hf://owner/.*@[0-9a-f]{40}'"):
        model = kp.from_hub(published, classes=7)
    assert model.labels is None and model.output_shape == (None, 7)
    assert kp.from_hub(published, include_top=False, pooling="avg").output_shape == (None, 64)


def test_another_builder_is_told_both_networks(published, server):
    with pytest.raises(ValueError) as error:
        kp.PreActResNet32(weights=f"hf://{published}")
    one_line(error, "holds PreActResNet20 and the builder is PreActResNet32", "units is (3, 3, 3) and (5, 5, 5)",
             f"from_hub('{published}')")
    assert not [path for _, path in server.requests if path.endswith(".h5")]


@pytest.mark.parametrize("address", ["hf://name", "hf://a/b/c", "hf://../x", "hf://a/b@../../x", "hf://a/b@", "a\nb/c"])
def test_addresses_that_are_none(address):
    with pytest.raises(ValueError, match="is named 'owner/name' or 'owner/name@revision'"):
        kp.from_hub(address)


def test_what_is_no_repository_that_can_be_loaded(server):
    server.repositories["owner/timm"] = stored = hub_server.Repository()
    stored.put({"model.safetensors": b"x"})
    with pytest.raises(hub.HubError) as error:
        kp.from_hub("owner/timm")
    one_line(error, "config.json of hf://owner/timm@", "no such file", "Only what keras_preact published, and timm's")


@pytest.fixture(scope="module")
def timm(tmp_path_factory):
    """A repository as timm publishes them, and its logits of some images."""
    peers, torch = pytest.importorskip("peers"), pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("timm")
    timm = peers.timm()
    model = peers.randomize(timm.create_model("resnetv2_18"))
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    images = np.random.default_rng(1).normal(size=(2, 64, 64, 3)).astype("float32")
    with torch.no_grad():
        logits = model(torch.as_tensor(images.transpose(0, 3, 1, 2))).numpy()
    return {path.name: path.read_bytes() for path in folder.iterdir()}, images, logits


@pytest.fixture
def timm_repository(timm, server):
    name = f"timm/resnetv2_18.test{next(numbers)}"
    server.repositories[name] = stored = hub_server.Repository()
    stored.put(timm[0])
    return name


def test_a_network_of_timm_is_converted_when_it_is_first_used(timm, timm_repository, server, monkeypatch):
    _, images, logits = timm
    weight = dataclasses.replace(index.find("PreActResNet18", "imagenet_timm"), file=f"hf://{timm_repository}")
    monkeypatch.setattr(index, "upstream", lambda: (weight,))
    arguments = {"input_shape": (64, 64, 3), "classifier_activation": None}
    for build in (
        lambda: kp.PreActResNet18(weights="imagenet", **arguments),
        lambda: kp.PreActResNet18(weights=f"hf://{timm_repository}", **arguments),
        lambda: kp.from_hub(timm_repository, **arguments),
    ):
        model = build()
        found = keras.ops.convert_to_numpy(model(images))
        assert np.abs(found - logits).max() < 1e-4 * np.abs(logits).max()
        assert (model.name, model.preprocessing.size, len(model.labels)) == ("preactresnet18", (64, 64), 1000)
    assert sum(path.endswith("model.safetensors") and method == "GET" for method, path, *_ in server.requests) <= 2
    with pytest.raises(ValueError, match="holds weights of PreActResNet18. Received: the builder PreActResNet34"):
        kp.PreActResNet34(weights=f"hf://{timm_repository}")
    assert kp.pull(timm_repository) == kp.pull("PreActResNet18") == [hub.converted(*hub.resolve(timm_repository))]
    # Without a network the converted file is used.
    with server.fault("reset", ".*", times=99):
        kp.PreActResNet18(weights=f"hf://{timm_repository}", **arguments)


def test_converted_weights_are_of_float32_under_every_policy(timm_repository, dtype_policy):
    dtype_policy("float16")
    kp.from_hub(timm_repository)
    assert keras.config.dtype_policy().name == "float16"
    kernel, *_ = files.read(hub.converted(*hub.resolve(timm_repository)))["stem_conv"]
    assert kernel.dtype == "float32"


def test_converted_weights_are_measured_and_published(server, tmp_path, capsys):
    torch, peers = pytest.importorskip("torch"), pytest.importorskip("peers")
    provider = pytest.importorskip("pytorchcv.model_provider")  # after peers, which stands in for torchvision
    model = peers.randomize(provider.get_model("preresnet20_cifar10"))
    file, data = tmp_path / "preresnet20_cifar10.pth", tmp_path / "cifar10.npz"
    name = f"owner/converted-{next(numbers)}"
    torch.save(model.state_dict(), file)
    x = np.random.default_rng(2).integers(0, 256, (40, 32, 32, 3), dtype="uint8")
    arguments = ["convert", "pytorchcv", str(file), "--push", name]
    assert cli.main(arguments) == 2 and "--push needs --data and --licence" in capsys.readouterr().err
    mean, std = np.array((0.4914, 0.4822, 0.4465)), np.array((0.2023, 0.1994, 0.2010))
    logits = peers.logits(model, ((x / 255 - mean) / std).astype("float32"))
    labels = np.where(np.arange(40) < 30, logits.argmax(1), (logits.argmax(1) + 1) % 10)  # the last ten are wrong
    np.savez(data, x_train=x[:10], y_train=np.arange(10), x_test=x, y_test=labels)
    assert cli.main([*arguments, "--data", str(data), "--licence", "MIT"]) == 0
    assert "25.00 % top-1 error on 40 test images of cifar10" in capsys.readouterr().out
    for build in (kp.from_hub(name), kp.PreActResNet20(weights=f"hf://{name}")):
        found = keras.ops.convert_to_numpy(build(kp.preprocess_input(x, build.preprocessing)))
        assert (found.argmax(1) == logits.argmax(1)).all() and build.labels[3] == "cat"
    card = server.repositories[name].head()["README.md"].content.decode()
    assert "license: mit" in card and "25.0 % top-1 error" in card


def test_a_spoilt_file_of_timm_is_not_converted(timm_repository, server):
    with server.fault("flip", r".*/config\.json", times=9), pytest.raises(hub.HubError) as error:
        kp.from_hub(timm_repository)
    one_line(error, "config.json of", "downloaded twice and is not what was published: its git hash is ")
    with server.fault("flip", r"/content/.*/model\.safetensors", times=9), pytest.raises(hub.HubError) as error:
        kp.from_hub(timm_repository)
    one_line(error, "model.safetensors of", "downloaded twice and is not what was published: its sha256 is ")
    assert not hub.converted(*hub.resolve(timm_repository)).exists()


def test_weights_of_another_zoo_that_are_not_fetched_say_how_to_get_them(server):
    pattern = r"Download resnet-200.t7 from https://github.com/facebook.*, run `keras-preact convert torch7 FILE"
    with pytest.raises(ValueError, match="'imagenet_torch7' of PreActResNet200 are published by another.*" + pattern):
        kp.PreActResNet200(weights="imagenet_torch7")
    assert not server.requests


# Faults of a file: what is spoilt, how often, and the message; None where the file comes in the end.
FAULTS = [
    ("flip", 1, None),
    ("flip", 9, "downloaded twice and is not what was published: its sha256 is "),
    ("truncate", 1, None),
    ("short", 9, "failed or broke off"),
    ("reset", 9, "failed or broke off"),
    ("404", 9, "404"),
    ("403", 9, "403"),
]


@pytest.mark.parametrize("kind, times, message", FAULTS, ids=lambda value: str(value)[:8])
def test_spoilt_weights_are_fetched_again_or_refused(kind, times, message, published, server):
    with server.fault(kind, r"/content/.*/model\.weights\.h5", times=times):
        if message:
            with pytest.raises(hub.HubError) as error:
                kp.from_hub(published)
            one_line(error, f"model.weights.h5 of hf://{published}@{server.repositories[published].branches['main']}",
                     message)
            assert not [path for path in cached_files(published) if path.stat().st_size > 100_000]
    model = kp.from_hub(published)
    content = server.repositories[published].head()["model.weights.h5"].content
    assert content in [path.read_bytes() for path in cached_files(published)]
    assert model.labels == ("0", "1", "2", "3")
    assert not [path for path in cached_files(published) if path.suffix == ".incomplete"]


@pytest.mark.parametrize("kind, times, message", FAULTS[:5], ids=lambda value: str(value)[:8])
def test_spoilt_metadata_is_fetched_again_or_refused(kind, times, message, published, server):
    with server.fault(kind, r"/resolve/.*/keras_preact\.json", times=times):
        if message:
            with pytest.raises(hub.HubError) as error:
                kp.from_hub(published)
            one_line(error, f"keras_preact.json of hf://{published}@")
            assert not cached_files(published)
    assert kp.from_hub(published).labels == ("0", "1", "2", "3")


def test_a_file_that_was_damaged_in_the_cache_is_fetched_again(published, server):
    kp.from_hub(published)
    (path,) = [path for path in cached_files(published) if path.stat().st_size > 100_000]
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with server.fault("404", r"/(resolve|content)/.*/model\.weights\.h5", "HEAD"):
        with pytest.raises(hub.HubError) as error:
            kp.from_hub(published)
        one_line(error, "the copy in the cache is damaged, and downloading it again failed", "404")
    assert not path.exists()
    assert kp.from_hub(published).labels == ("0", "1", "2", "3")


def spoilt(change):
    """Metadata with a change, and the sha256 that whoever changes it would write."""
    def of(text):
        values = json.loads(text)
        del values["sha256"]
        change(values)
        values["sha256"] = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        return json.dumps(values).encode()
    return of


@pytest.mark.parametrize("change, message", [
    (spoilt(lambda v: v.update(format=3)), "format 3, and this version of keras_preact reads format 2. Upgrade"),
    (spoilt(lambda v: v["files"].update({"../../.ssh/id": "0" * 64})), "files has a value that is not allowed"),
    (spoilt(lambda v: v["files"].update({"/etc/passwd": "0" * 64})), "files has a value that is not allowed"),
    (spoilt(lambda v: v["files"].update({"C:\\x": "0" * 64})), "files has a value that is not allowed"),
    (spoilt(lambda v: v.update(run="rm")), "missing or unknown: ['run']"),
    (spoilt(lambda v: v["config"].pop("units")), "missing or unknown: ['units']"),
    (spoilt(lambda v: v["config"].update(units=[10**9])), "config.units has a value that is not allowed"),
    (spoilt(lambda v: v["config"].update(order="post")), "`order` must be one of"),
    (spoilt(lambda v: v["config"].update(epsilon="1e-5")), "config.epsilon has a value that is not allowed"),
    (spoilt(lambda v: v["preprocessing"].update(mean=[float("nan")] * 3)), "NaN is no value of JSON"),
    (spoilt(lambda v: v["measured"].update(error=10**400)), "too large"),
    (spoilt(lambda v: v.update(labels=["a" * 2000])), "labels has a value that is not allowed"),
    (spoilt(lambda v: v.update(licence="x" * 2_000_000)), "bytes. keras_preact writes at most 1000000"),
    (lambda text: b"[" * 100_000, "nested too deeply"),
    (lambda text: b"\x80\x04K*.", "keras_preact.json of hf://"),
    (lambda text: text.replace(b"0.5", b"0.6", 1).replace(b"PreActResNet20", b"PreActResNet21"), "its sha256 is not"),
], ids=lambda value: value[:30] if isinstance(value, str) else "")
def test_metadata_that_is_refused(change, message, published, server):
    stored = server.repositories[published]
    stored.put({"keras_preact.json": change(stored.head()["keras_preact.json"].content)})
    with pytest.raises(hub.HubError) as error:
        kp.from_hub(published)
    one_line(error, f"keras_preact.json of hf://{published}@", message)
    assert not [path for _, path in server.requests if "/content/" in path or path.endswith(".h5")]
    if "bytes" in message:  # it is not even downloaded
        assert not cached_files(published)


def test_the_schema_knows_every_field():
    from keras_preact.zoo.metadata import _SCHEMA

    for key, kind in (("config", kp.NetworkConfig), ("preprocessing", kp.Preprocessing)):
        assert _SCHEMA[key].keys() == {field.name for field in dataclasses.fields(kind)}


def test_who_may_read(published, server, monkeypatch):
    stored = server.repositories[published]
    server.tokens["hf_reader"] = "reader"
    stored.gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with pytest.raises(hub.HubError) as error:
        kp.from_hub(published)
    one_line(error, published, "the repository is gated", "(403)", f"Ask for it at {server.url}/{published}")
    stored.readers.add("reader")
    kp.from_hub(published)

    stored.private = True
    stored.put({"x": b"x"})
    with pytest.raises(hub.HubError) as error:
        kp.from_hub(published)
    one_line(error, published, "no such repository, or it is private", "(404)", "hf auth login", "HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(hub.HubError) as error:
        kp.from_hub(published)
    one_line(error, published, "does not accept the token (401)", "HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(hub.HubError) as error:
        kp.from_hub(published)
    one_line(error, published, "(401)")
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    kp.from_hub(published)


def test_names_and_revisions_that_do_not_exist(published):
    with pytest.raises(hub.HubError) as error:
        kp.from_hub(f"{published}-none")
    one_line(error, f"hf://{published}-none@main", "no such repository", "(404)")
    for revision in ("none", "0" * 40):
        with pytest.raises(hub.HubError) as error:
            kp.from_hub(f"{published}@{revision}")
        one_line(error, f"hf://{published}@{revision}", "no such branch, tag or commit", "/commits lists them")


@pytest.mark.parametrize("token, message", [
    ("", "(401)"), ("hf_wrong", "does not accept the token (401)"), ("hf_reader", "token does not permit this (403)"),
])
def test_who_may_write(token, message, published, run, server, monkeypatch):
    server.tokens["hf_reader"] = "reader"
    monkeypatch.setenv("HF_TOKEN", token)
    for name in (published, "owner/new"):
        with pytest.raises(hub.HubError) as error:
            kp.push_to_hub(run, name)
        one_line(error, f"hf://{name}@main", message, "hf auth login")
    assert len(server.repositories[published].commits) == 2 and "owner/new" not in server.repositories


def test_tokens_stay_with_the_hub(published, server, monkeypatch):
    # The content host refuses requests with a token; a message in which the Hub repeats one does not pass it on.
    kp.from_hub(published)
    with server.fault("500", "/api/models/", X_Error_Message="bad token hf_owner"):
        with pytest.raises(hub.HubError) as error:
            kp.from_hub("owner/other")
        assert "hf_owner" not in str(error.value)


# In processes of their own: huggingface_hub reads these settings at import.
LOAD = "import sys, keras_preact as kp; print(kp.from_hub(sys.argv[1]).labels)"


@pytest.mark.slow
def test_pulled_weights_need_no_network(published, server, tmp_path):
    environment = {"HF_HOME": str(tmp_path)}
    pull = "import sys; from keras_preact import cli; sys.exit(cli.main(['pull', sys.argv[1]]))"
    out = helpers.run_python(pull, published, cwd=tmp_path, **environment)
    assert {Path(line).name for line in out.splitlines()} == FILES - {"keras_preact.json"}
    del server.requests[:]
    out = helpers.run_python(LOAD, published, cwd=tmp_path, HF_HUB_OFFLINE="1", **environment)
    assert out == "('0', '1', '2', '3')\n" and not server.requests
    # A Hub that cannot be reached is no obstacle either.
    out = helpers.run_python(LOAD, published, cwd=tmp_path, HF_ENDPOINT="http://127.0.0.1:1", **environment)
    assert out == "('0', '1', '2', '3')\n"


@pytest.mark.slow
@pytest.mark.parametrize("environment, parts", [
    ({"HF_HUB_OFFLINE": "1"}, ("HF_HUB_OFFLINE forbids", "keras-preact pull owner/cold")),
    ({"HF_ENDPOINT": "http://127.0.0.1:1"}, ("the connection to http://127.0.0.1:1 failed", "(ConnectError)")),
])
def test_a_cold_cache_without_a_network(environment, parts, tmp_path):
    command = [sys.executable, "-m", "keras_preact.cli", "pull", "owner/cold"]
    done = subprocess.run(
        command, env=os.environ | {"HF_HOME": str(tmp_path)} | environment, capture_output=True, text=True, cwd=ROOT
    )
    told, *failed = done.stderr.splitlines()
    assert done.returncode == 1 and told == "every file of hf://owner/cold" and len(failed) == 1, done.stderr
    for part in ("keras-preact: hf://owner/cold@main: ", *parts):
        assert part in done.stderr


@pytest.mark.slow
def test_a_full_disk_is_reported(published, tmp_path):
    code = """
import resource, sys
import keras_preact as kp, keras
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    kp.from_hub(sys.argv[1])
except OSError as error:
    print(error)
"""
    out = helpers.run_python(code, published, cwd=tmp_path, HF_HOME=str(tmp_path))
    assert out.startswith(f"model.weights.h5 of hf://{published}@") and "File too large. Make room there" in out
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 100_000]
    assert helpers.run_python(LOAD, published, cwd=tmp_path, HF_HOME=str(tmp_path)) == "('0', '1', '2', '3')\n"


@pytest.mark.slow
def test_two_processes_fetch_at_once(published, tmp_path):
    code = "import sys, keras; from keras_preact.zoo import hub\ninput()\n" \
        "s = hub.snapshot(sys.argv[1]); print(hub.digest(s.file('model.weights.h5')))"
    environment = os.environ | {"HF_HOME": str(tmp_path)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, published], env=environment, text=True, cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) for _ in range(2)
    ]
    results = [process.communicate("\n", timeout=100) for process in both]
    expected = hub.snapshot(published).metadata.files["model.weights.h5"]
    assert [out for out, _ in results] == [f"{expected}\n"] * 2, results


@pytest.fixture
def remote(published, server, monkeypatch, tmp_path):
    """An index whose only weight is that of `published`, pinned, and not in the package."""
    weight, *_ = kp.list_weights("PreActResNet20")
    stored = server.repositories[published]
    weight = dataclasses.replace(
        weight, repository=published, revision=stored.branches["main"], file="elsewhere.weights.h5",
        sha256=stored.head()["model.weights.h5"].sha256,
    )
    monkeypatch.setattr(index, "entries", lambda: (weight,))
    monkeypatch.setattr(index, "upstream", lambda: ())  # which `pull` fetches, too
    return weight


def test_an_indexed_weight_comes_from_the_cache_or_its_pinned_commit(remote, server, capsys):
    stored = server.repositories[remote.repository]
    stored.put({"model.weights.h5": b"moved on", "keras_preact.json": None})
    assert [w.where for w in kp.list_weights()] == ["remote"]
    with server.fault("flip", "/content/", times=1):
        first = kp.PreActResNet20(weights="cifar10")
    assert [w.where for w in kp.list_weights()] == ["cached"]
    assert first.output_shape == (None, 4) and first.preprocessing == remote.preprocessing
    del server.requests[:]
    second = kp.PreActResNet20(weights="cifar10")
    assert not server.requests
    for name, value in helpers.weights_of(first).items():
        np.testing.assert_array_equal(value, helpers.weights_of(second)[name])
    assert cli.main(["list", "PreActResNet20"]) == 0
    assert cli.main(["pull", "PreActResNet2*"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"cifar10 \(8\.06 %\)\s+cached", out) and out.rstrip().endswith("model.weights.h5")


def test_an_indexed_weight_that_is_not_the_published_one_is_never_loaded(remote, server, monkeypatch):
    built = []
    monkeypatch.setattr(builders, "ResNet", lambda *args, **kwargs: built.append(args))
    with server.fault("flip", "/content/"), pytest.raises(hub.HubError) as error:
        kp.PreActResNet20(weights="cifar10")
    one_line(error, f"model.weights.h5 of hf://{remote.repository}@{remote.revision}", "instead of " + remote.sha256)
    assert not built and not cached_files(remote.repository)


def test_bundled_weights_need_no_hub(server, monkeypatch):
    monkeypatch.setattr(index, "upstream", lambda: ())
    assert {w.where for w in kp.list_weights()} == {"bundled"}
    kp.PreActResNet20(weights="cifar10")
    assert [Path(path).parent for path in kp.pull("PreActResNet20")] == [index.folder()] * 3
    assert not server.requests


@pytest.mark.parametrize("kind, method, path", [
    ("403", "POST", "/preupload/"), ("400", "POST", "/info/lfs/objects/batch"), ("403", "PUT", "/upload/"),
    ("500", "POST", "/commit/"), ("reset", "POST", "/commit/"), ("400", "POST", "/validate-yaml"),
])
def test_an_interrupted_push_leaves_the_branch_as_it_was(kind, method, path, published, run, server):
    stored = server.repositories[published]
    stored.put({"model.weights.h5": b"old", "README.md": b"old"})
    before = dict(stored.branches)
    stored.stored.clear()
    with server.fault(kind, path, method), pytest.raises(hub.HubError) as error:
        kp.push_to_hub(run, published)
    one_line(error, f"hf://{published}@main")
    if kind != "reset":  # there the commit was made, and only the answer did not arrive
        assert stored.branches == before
    publication = kp.push_to_hub(run, published)
    assert stored.branches == {"main": publication.commit}


def test_a_push_is_read_back(run, server):
    name = f"owner/readback-{next(numbers)}"
    with server.fault("flip", r"/content/.*/golden\.npz"), pytest.raises(hub.HubError) as error:
        kp.push_to_hub(run, name)
    one_line(error, f"golden.npz of hf://{name}@", "is not what was published")


def test_a_push_over_that_of_somebody_else_is_refused(published, run, server, monkeypatch):
    stored, write = server.repositories[published], publishing._write

    def meanwhile(*arguments):
        stored.put({"note.txt": b"of somebody else"})
        return write(*arguments)

    monkeypatch.setattr(publishing, "_write", meanwhile)
    model, _ = runs.load_run(run)
    helpers.randomize(model, 5)
    with pytest.raises(hub.HubError) as error:
        kp.push_to_hub(model, published, hub.snapshot(published).metadata)
    one_line(error, "somebody else changed the branch meanwhile (412)")
    assert "note.txt" in stored.head()


def test_a_push_to_a_repository_that_is_not_ours_has_the_same_guard(run, server, monkeypatch):
    name, write = f"owner/foreign-{next(numbers)}", publishing._write
    huggingface_hub.HfApi().create_repo(name)
    stored = server.repositories[name]

    def meanwhile(*arguments):
        stored.put({"note.txt": b"of somebody else"})
        return write(*arguments)

    monkeypatch.setattr(publishing, "_write", meanwhile)
    with pytest.raises(hub.HubError) as error:
        kp.push_to_hub(run, name)
    one_line(error, "somebody else changed the branch meanwhile (412)")


def test_a_push_over_a_newer_format_is_refused(published, run, server):
    stored = server.repositories[published]
    newer = stored.put({hub.METADATA: json.dumps({"format": 99}).encode()})
    with pytest.raises(hub.HubError) as error:
        kp.push_to_hub(run, published)
    one_line(error, "it is of format 99", "Upgrade")
    assert stored.branches == {"main": newer}


def test_a_look_up_that_fails_permits_no_push(published, run, server):
    before = dict(server.repositories[published].branches)
    with server.fault("403", rf"/resolve/.*{hub.METADATA}", "HEAD"), pytest.raises(hub.HubError):
        kp.push_to_hub(run, published)
    assert server.repositories[published].branches == before


def test_golden_outputs_that_another_machine_rounds_otherwise_are_kept(run, server, monkeypatch):
    name, outputs = f"owner/golden-{next(numbers)}", publishing._outputs
    first = kp.push_to_hub(run, name)
    monkeypatch.setattr(publishing, "_outputs", lambda *arguments: outputs(*arguments) * (1 + 1e-6))
    assert kp.push_to_hub(run, name).commit == first.commit
    monkeypatch.setattr(publishing, "_outputs", lambda *arguments: outputs(*arguments) * 1.01)
    assert kp.push_to_hub(run, name).commit != first.commit


@pytest.mark.slow
def test_the_default_transfer_is_xet(first_published, run, server, tmp_path, monkeypatch):
    # hf_xet takes a folder for the storage that the Hub runs, and the server cannot know the hashes xet gives files.
    import hf_xet

    for name, blob in server.repositories[first_published].head().items():
        (tmp_path / name).write_bytes(blob.content)
        (info,) = hf_xet.hash_files([str(tmp_path / name)])
        if blob.lfs:
            monkeypatch.setitem(server.xet_hashes, blob.sha256, info.hash)
    monkeypatch.setattr(server, "xet_storage", f"local://{tmp_path}/storage")
    code = """
import pathlib, shutil, sys
import keras_preact as kp
run, name, home = sys.argv[1:]
kp.push_to_hub(run, name)
print(kp.from_hub(name).labels)
(shared,) = [p for p in pathlib.Path(home, "hub", "blobs").rglob("*") if p.is_file() and p.stat().st_size > 10**6]
shared.chmod(0o644)
shared.write_bytes(b"damaged")
print(kp.from_hub(name).labels)
shared.chmod(0o644)
shared.write_bytes(b"damaged")
shutil.rmtree(f"{home}/storage")
try:
    kp.from_hub(name)
except OSError as error:
    print(error, shared.exists())
"""
    name = f"owner/xet-{next(numbers)}"
    out = helpers.run_python(
        code, run, name, tmp_path, cwd=tmp_path, HF_HUB_DISABLE_XET="0", HF_HOME=str(tmp_path),
        HF_XET_CHUNK_CACHE_SIZE_BYTES="0",
    ).splitlines()
    assert server.repositories[name].head()["model.weights.h5"].content is None
    assert out[:2] == ["('0', '1', '2', '3')"] * 2
    assert out[2].startswith(f"model.weights.h5 of hf://{name}@") and "downloading it again failed" in out[2]
    assert out[2].endswith(" False")


def test_private_means_private(published, run, server):
    with pytest.raises(hub.HubError, match="the repository exists and is public"):
        kp.push_to_hub(run, published, private=True)
    name = f"owner/private-{next(numbers)}"
    kp.push_to_hub(run, name, private=True)
    assert server.repositories[name].private


def test_a_model_must_be_what_its_metadata_says(published, server):
    metadata = hub.snapshot(published).metadata
    model = kp.from_hub(published)
    logits = kp.from_hub(published, classifier_activation=None)
    with pytest.raises(ValueError, match="with a softmax at its end"):
        kp.push_to_hub(logits, "owner/model", metadata)
    with pytest.raises(ValueError, match="do not fit"):
        kp.push_to_hub(model, "owner/model", dataclasses.replace(metadata, labels=("a", "b")))
    with pytest.raises(ValueError, match="measured must have the keys error, images.*missing or unknown: ..crop"):
        kp.push_to_hub(model, "owner/model", dataclasses.replace(metadata, measured={"error": 1.0}))
    with pytest.raises(ValueError, match="Give the branch as `revision`"):
        kp.push_to_hub(model, "owner/model@main", metadata)
    with pytest.raises(ValueError, match="holds no finished run"):
        kp.push_to_hub(ROOT, "owner/model")
    assert "owner/model" not in server.repositories


def test_a_dry_run_asks_nobody(run, server, capsys):
    assert cli.main(["push", str(run), "owner/dry", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert not server.requests and "Nothing was published" in out and "# PreActResNet20 trained on data" in out
    assert set(re.findall(r"^ +[\d,]+  (\S+)$", out, re.MULTILINE)) == FILES


def test_what_a_dry_run_keeps_is_ready_for_the_hubs_own_client(run, server, tmp_path, capsys):
    name, folder = f"owner/kept-{next(numbers)}", tmp_path / "hub" / "kept"
    command = ["push", str(run), name, "--dry-run", "--output", str(folder)]
    assert cli.main(command) == 0 and not server.requests
    assert {path.name for path in folder.iterdir()} == FILES
    assert cli.main(command) == 2 and f"this one exists already: {folder}" in capsys.readouterr().err
    huggingface_hub.create_repo(name)
    huggingface_hub.upload_folder(repo_id=name, folder_path=folder)
    model, golden = kp.from_hub(name), np.load(folder / "golden.npz")
    outputs = model.predict(kp.preprocess_input(golden["input"], model.preprocessing), verbose=0)
    np.testing.assert_allclose(outputs, golden["output"], rtol=1e-3, atol=1e-5)


def test_what_a_run_was_measured_on_is_told_exactly(run, tmp_path):
    held = shutil.copytree(run, tmp_path / "held")
    record = json.loads((held / "run.json").read_text())
    record["hold_out"] = 4
    record["data"]["preprocessing"]["crop"] = 0.5
    (held / "run.json").write_text(json.dumps(record))
    card = kp.push_to_hub(held, "owner/held", dry_run=True).card
    assert re.search(
        r"[\d.]+ % top-1 error on data, held out of the training images, 4 images; "
        r"crop 8x8 of images whose shorter side is 16; last epoch\.\n", card
    )
    assert "split: held out of the training images\n" in card
    (held / "log.csv").unlink()
    with pytest.raises(ValueError, match="has no log.csv"):
        kp.push_to_hub(held, "owner/held", dry_run=True)


def test_the_card(published, run, tmp_path, monkeypatch, capsys):
    text = Path(huggingface_hub.hf_hub_download(published, "README.md")).read_text()
    card = huggingface_hub.ModelCard(text)
    card.validate()
    data = card.data.to_dict()
    assert (data["library_name"], data["license"], data["pipeline_tag"]) == (
        "keras", "apache-2.0", "image-classification"
    )
    name, (result,) = huggingface_hub.repocard_data.model_index_to_eval_results(data["model-index"])
    assert name == "PreActResNet20" and result.metric_args == {"images": 4, "crop": "8x8", "selection": "last epoch"}
    assert (result.dataset_name, result.dataset_split, result.metric_type) == ("data", "test", "accuracy")
    (line,) = runs.read_log(run / runs.LOG)
    assert result.metric_value == pytest.approx(1 - float(line["test_error"]) / 100)
    assert "269,332 parameters" in text and "- seed: 1\n" in text and "epochs 1, batch_size 8" in text
    assert "hf_owner" not in text and len(text) < 5000

    # Its example runs as it stands there.
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((10, 10, 3), 90, "uint8")).save("image.png")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(block, {})
    assert re.search(r"\[\[\('\d', 0\.\d+\), ", capsys.readouterr().out)


def test_a_card_with_wrong_metadata_fails_validation(server):
    with pytest.raises(ValueError, match="license"):
        huggingface_hub.ModelCard("---\nlicense: [1]\n---\n").validate()


def test_the_command_publishes_and_measures(run, server, capsys, tmp_path):
    name = f"owner/command-{next(numbers)}"
    assert cli.main(["push", str(run), name, "--revision", "first"]) == 0
    (commit,) = re.findall(rf"Published and read back: hf://{name}@([0-9a-f]{{40}})\n", capsys.readouterr().out)
    assert server.repositories[name].branches["first"] == commit
    data = ["--data", str(run.parent / "data.npz")]
    assert cli.main(["evaluate", f"hf://{name}@first", *data]) == 0
    from_hub = capsys.readouterr().out
    assert cli.main(["evaluate", str(run), *data]) == 0
    assert capsys.readouterr().out == from_hub
    assert cli.main(["classify", str(ROOT / "examples/images/cat_0000.png"), "--model", f"hf://{name}@first"]) == 0
    assert re.search(r"cat_0000.png  [0-3] \d", capsys.readouterr().out)


def test_from_a_run_to_an_indexed_weight_in_two_commands(run, server, tmp_path, monkeypatch, capsys):
    name = f"owner/two-{next(numbers)}"
    weights = tmp_path / "weights"
    weights.mkdir()
    for file in ("add.py", "index.json", "results.csv"):
        shutil.copyfile(ROOT / "weights" / file, weights / file)
    assert cli.main(["push", str(run), name]) == 0
    arguments = ["--data", str(run.parent / "data.npz"), "--tag", "tiny", "--commit", "0" * 40, "--hardware", "none"]
    monkeypatch.setattr(sys, "argv", ["add.py", str(run), *arguments, "--repository", name])
    runpy.run_path(str(weights / "add.py"), run_name="__main__")
    entry = json.loads((weights / "index.json").read_text())[-1]
    stored = server.repositories[name]
    assert (entry["repository"], entry["revision"]) == (name, stored.branches["main"])
    assert entry["sha256"] == stored.head()["model.weights.h5"].sha256
    assert (weights / entry["file"]).read_bytes() == stored.head()["model.weights.h5"].content
    assert (entry["architecture"], entry["measured"]["images"]) == ("PreActResNet20", 4)

    model, _ = runs.load_run(run)
    helpers.randomize(model, 5)
    kp.push_to_hub(model, name, hub.snapshot(name).metadata)
    with pytest.raises(SystemExit):
        runpy.run_path(str(weights / "add.py"), run_name="__main__")
    assert f"{name} holds other weights than {run}" in capsys.readouterr().err
    assert hub.digest(weights / entry["file"]) == entry["sha256"]
