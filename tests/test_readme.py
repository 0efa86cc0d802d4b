"""What the README and the documentation say works, run as it stands there."""
import glob
import json
import re
from pathlib import Path

import hub_server
import keras
import numpy as np
import pytest
from PIL import Image

import keras_preact as kp
from keras_preact.cli import command
from keras_preact.data.preprocessing import LABELS
from keras_preact.networks.architectures import CONFIGS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {path.stem: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
BLOCKS = [
    pytest.param(block, id=f"{page} {i}", marks=[pytest.mark.slow] * ("kp.predictor(" in block))
    for page, text in PAGES.items() for i, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
]


@pytest.fixture
def sample(monkeypatch, tmp_path):
    """Small stand-ins for the data a block downloads, and a folder for what it writes."""
    data = ROOT / "tests" / "data"
    images = np.asarray(Image.open(data / "cifar10_sample.webp").convert("RGB"))[:64, :1280]
    images = images.reshape(2, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4).reshape(80, 32, 32, 3)
    labels = np.array([int(c) for c in json.loads((data / "cifar10_sample.json").read_text())["labels"][:80]])
    split = (images[:64], labels[:64, None]), (images[64:], labels[64:, None])
    monkeypatch.setattr(keras.datasets.cifar100, "load_data", lambda: split)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def repository():
    """The repository of the README, on loopback, with the weights that ship with the package."""
    if hub_server.LIVE:
        pytest.skip("the live Hub has no repository of that name")
    weight, *_ = kp.list_weights("PreActResNet20")
    measured = {key: weight.measured[key] for key in ("error", "images", "split", "crop", "selection")}
    kp.push_to_hub(kp.PreActResNet20(weights="cifar10"), "owner/name", kp.Metadata(
        "PreActResNet20", CONFIGS["PreActResNet20"], weight.preprocessing, LABELS["cifar10"], "cifar10", measured
    ))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.filterwarnings("ignore:.*all layers but 'predictions' were loaded:UserWarning")
def test_python_blocks_run(block, sample, capsys, request):
    if "from_hub" in block:
        request.getfixturevalue("repository")
    exec(block, {})
    if "decode_predictions" in block:
        assert re.search(r"\[\[\('cat', 0\.\d+\), ", capsys.readouterr().out)
    if "cifar100.keras" in block:
        assert keras.saving.load_model(sample / "cifar100.keras").output_shape == (None, 100)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_links_and_commands_lead_somewhere(page):
    """Relative links have their files, and commands the verbs that there are."""
    text, folder = PAGES[page], ROOT if page == "README" else ROOT / "docs"
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (folder / link).exists(), link
    for verb in re.findall(r"^keras-preact ([\w-]+)", text, re.MULTILINE):
        assert verb in command.commands, verb


def test_the_output_shown_is_the_output_printed(capsys, monkeypatch):
    from keras_preact import cli

    monkeypatch.chdir(ROOT)
    (pattern,) = re.findall(r"^keras-preact classify (\S+\*\S+)$", README, re.MULTILINE)
    assert cli.main(["classify", *sorted(glob.glob(pattern))]) == 0
    assert capsys.readouterr().out.strip() in README
