"""The docstrings of public names: each has an example, and the examples do what they show."""
import dataclasses
import doctest
import inspect
import json
from pathlib import Path

import hub_server
import keras
import numpy as np
import pytest
from PIL import Image

import keras_preact as kp
from keras_preact.data.preprocessing import LABELS
from keras_preact.networks.architectures import CONFIGS

DATA = Path(__file__).parent / "data"
BUILDERS = [name for name in CONFIGS if name != "PreActResNet20"]
NAMES = sorted({*kp.__all__} - {*BUILDERS, "__version__"})


def sample():
    """Returns 80 images of the test set of CIFAR-10 and their labels."""
    images = np.asarray(Image.open(DATA / "cifar10_sample.webp").convert("RGB"))[:64, :1280]
    images = images.reshape(2, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4).reshape(80, 32, 32, 3)
    return images, np.array([int(c) for c in json.loads((DATA / "cifar10_sample.json").read_text())["labels"][:80]])


def run(name):
    """Runs the example of a public name and returns how many lines it has."""
    images, labels = sample()
    given = {"kp": kp, "keras": keras, "np": np, "dataclasses": dataclasses, "images": images, "labels": labels}
    test = doctest.DocTestParser().get_doctest(getattr(kp, name).__doc__, given, name, None, 0)
    report = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
    assert not report, "".join(report)
    return len(test.examples)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the examples read: photographs, an image, and the run that the example of `train` makes."""
    folder = tmp_path_factory.mktemp("examples")
    images, _ = sample()
    Image.fromarray(images[0]).save(folder / "cat.png")
    for i, image in enumerate(images[:20]):
        (folder / "flower_photos" / ("daisy", "rose")[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "flower_photos" / ("daisy", "rose")[i % 2] / f"{i}.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("train")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="some of the examples are of TensorFlow")
@pytest.mark.filterwarnings("ignore:.*all layers but 'predictions' were loaded:UserWarning")
@pytest.mark.parametrize("name", [name for name in NAMES if name != "train"])
def test_the_example_of_a_public_name_does_what_it_shows(name, place, monkeypatch):
    monkeypatch.chdir(place)
    if name in ("from_hub", "push_to_hub") and hub_server.LIVE:
        pytest.skip("the live Hub has no repository of that name")
    if name == "from_hub":
        weight, *_ = kp.list_weights("PreActResNet20")
        measured = {key: weight.measured[key] for key in ("error", "images", "split", "crop", "selection")}
        kp.push_to_hub(kp.PreActResNet20(weights="cifar10"), "owner/name", kp.Metadata(
            "PreActResNet20", CONFIGS["PreActResNet20"], weight.preprocessing, LABELS["cifar10"], "cifar10", measured
        ))
    assert run(name)


@pytest.mark.parametrize("name", BUILDERS)
def test_builders_name_weights_that_there_are(name):
    tags = [tag for weight in kp.list_weights(name) for tag in weight.tags]
    example = doctest.DocTestParser().get_examples(getattr(kp, name).__doc__)[0].source
    assert example == f"model = kp.{name}(weights={tags[0] if tags else None!r})\n"


def test_public_names_have_type_hints():
    for name in kp.__all__:
        if callable(public := getattr(kp, name)):
            signature = inspect.signature(public)
            bare = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
            assert not bare, f"{name}: {bare}"
            assert inspect.isclass(public) or signature.return_annotation is not signature.empty, name
