"""The page of `keras-preact demo`, over HTTP and, where Chromium and Playwright are installed, in a browser."""
import gc
import importlib.util
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_preact as kp
from keras_preact import cli

EXAMPLES = Path(__file__).parent.parent / "examples"
CAT = EXAMPLES / "images" / "cat_0000.png"
pytestmark = pytest.mark.filterwarnings("default")  # Gradio's own and those of its dependencies
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_gradio = pytest.mark.skipif(not importlib.util.find_spec("gradio"), reason="gradio is not installed")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and importlib.util.find_spec("playwright")), reason="chromium or playwright is not installed"
)


def test_the_space_asks_for_what_the_package_asks():
    text = (EXAMPLES / "demo" / "requirements.txt").read_text()
    asked = [line for line in text.splitlines() if not line.startswith("#")]
    setup = re.search(r"install_requires=\[(.*?)\]", (EXAMPLES.parent / "setup.py").read_text(), re.DOTALL)[1]
    assert asked == ["tensorflow-cpu>=2.18", *re.findall(r'"(.+?)"', setup)]
    front = (EXAMPLES / "demo" / "README.md").read_text().split("---")[1]
    assert "sdk: gradio\n" in front and "app_file: app.py\n" in front


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "keras_preact.demo", raising=False)
    assert cli.main(["demo"]) == 1
    assert "needs gradio, which is missing: pip install 'keras_preact[demo]'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished training run on two colours, which tells them apart."""
    folder = tmp_path_factory.mktemp("runs") / "colours"
    images = np.random.default_rng(0).integers(0, 100, (40, 8, 8, 3))
    images[::2, ..., 0] += 150
    data = {"x_train": images.astype("uint8"), "y_train": np.where(np.arange(40) % 2, "other", "red")}
    data |= {name.replace("train", "test"): array for name, array in data.items()}
    recipe = kp.Recipe("tiny", "a test", epochs=5, batch_size=10, drops=())
    kp.train(kp.NetworkConfig((1, 1), (4, 6)), data, recipe, folder, verbose=0)
    return folder


@pytest.fixture(scope="module")
def page(run):
    from keras_preact import demo

    blocks = demo.page(demo.networks(run.parent))
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True, theme=demo.THEME)
    yield address
    blocks.close()
    gc.collect()  # what Gradio left open warns here, and not in a module where warnings are errors


@needs_gradio
def test_what_can_be_had_without_a_network_is_offered(run):
    from keras_preact import demo

    first, *others = demo.networks(run.parent)
    bundled = {f"{weight.architecture} {weight.tag}" for weight in kp.list_weights() if weight.where == "bundled"}
    assert first == "PreActResNet20 cifar10" and bundled < {first, *others} and others[-1] == str(run)
    assert demo.networks(run)[str(run)]().labels == ("other", "red")
    assert str(run) not in demo.networks(run.parent / "nowhere")


@needs_gradio
@pytest.mark.parametrize("runtime", [None, "keras"])
def test_the_probabilities_of_every_class_and_the_overlay(runtime):
    from keras_preact import demo

    model = kp.PreActResNet20(weights="cifar10")
    look = next(iter(demo.page({"it": lambda: model}, runtime).fns.values())).fn
    found, overlay = look(str(CAT), "it")
    image = kp.load_image(CAT, model)
    (expected,) = model.predict_on_batch(kp.preprocess_input(image, model)[None])
    np.testing.assert_allclose([found[label] for label in model.labels], expected, atol=1e-5)
    # Grad-CAM of the first class: where the overlay differs most from the picture the heat is, at the cat's head.
    assert overlay.size == (224, 224) and look(None, "it") == (None, None)
    (heat,), _ = kp.grad_cam(model, kp.preprocess_input(image, model)[None])
    top, left = np.argwhere(heat == heat.max())[0] * 28 + 14
    assert overlay.getpixel((int(left), int(top)))[0] > 110  # red
    model.labels = ("dog", "cat", "bird", "cat", *"abcdef")  # where the second cat is the one
    assert look(str(CAT), "it")[0]["cat"] == max(found.values()) > 0.9


@needs_gradio
def test_files_over_http(page, run, tmp_path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(page, verbose=False)
    classes, overlay = client.predict(handle_file(CAT), "PreActResNet20 cifar10", api_name="/classify")
    assert classes["label"] == "cat" and len(classes["confidences"]) == 5
    with Image.open(overlay) as drawn:
        assert drawn.size == (224, 224)
    red = tmp_path / "red.png"
    Image.fromarray(np.full((8, 8, 3), (200, 50, 50), "uint8")).save(red)
    classes, _ = client.predict(handle_file(red), str(run), api_name="/classify")
    assert [found["label"] for found in classes["confidences"]] == ["red", "other"]
    broken = tmp_path / "broken.png"
    broken.write_bytes(CAT.read_bytes()[:200])
    with pytest.raises(AppError, match="broken.png cannot be read as an image"):
        client.predict(handle_file(broken), "PreActResNet20 cifar10", api_name="/classify")


@needs_gradio
@needs_browser
def test_in_a_browser(page, run, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab, asked = browser.new_page(), []
        tab.set_default_timeout(60_000)
        tab.on("request", lambda request: asked.append(request.url))

        def upload(file):
            tab.goto(page)
            tab.locator("input[type=file]").set_input_files(file)

        upload(CAT)
        first = tab.get_by_test_id("label-output-value")
        expect(first).to_have_text("cat", timeout=60_000)
        tab.wait_for_function("[...document.images].some(image => image.naturalWidth == 224)")  # the overlay

        tab.get_by_label("Network").click()
        tab.get_by_role("option", name=str(run)).click()
        expect(first).to_have_text(re.compile("red|other"), timeout=60_000)

        upload(broken)
        expect(tab.get_by_text("broken.png cannot be read as an image")).to_be_visible(timeout=60_000)
        browser.close()
    assert all(url.startswith((page, "data:", "blob:")) for url in asked)  # it needs no network
