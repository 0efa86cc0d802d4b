"""A page in the browser on which networks classify images and show where they look, by Gradio (the extra `demo`)."""
import functools
from collections.abc import Callable
from pathlib import Path

import gradio as gr
import keras
import numpy as np

from keras_preact.exporting.predicting import predictor
from keras_preact.exporting.runtimes import KERAS
from keras_preact.networks.explanation import grad_cam, overlay
from keras_preact.training import runs
from keras_preact.zoo import builders, catalogue
from keras_preact.zoo.images import load_image, preprocess_input

TOP = 5
OPEN = 4  # networks that are kept in memory
# Fonts of the machine, so that the page asks no other one.
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
TEXT = """# Pre-activation ResNets
Drop an image. The network tells its {top} most probable classes, and Grad-CAM shows where it sees the first one."""


def networks(folder: str = "runs") -> dict[str, Callable[[], keras.Model]]:
    """Returns what can be had without a network: {what the page calls it: a function that returns the model}.

    Args:
        folder: whose finished training runs are among them, beside the weights that are bundled or cached.
    """
    found = {
        f"{weight.architecture} {weight.tag}": functools.partial(
            getattr(builders, weight.architecture), weights=weight.tag
        )
        for weight in catalogue.list_weights() if weight.where != "remote"
    }
    finished = [row["folder"] for row in runs.found(folder) if row["state"] == "finished"]
    return found | {run: functools.partial(_of_run, run) for run in finished}


def _of_run(folder):
    return runs.load_run(folder)[0]


def page(
    choices: dict[str, Callable[[], keras.Model]], runtime: str | None = None, activation: str | None = None
) -> gr.Blocks:
    """Returns the page; `launch` of it serves it.

    Args:
        choices: the networks to choose among, as `networks` returns them; the first one is chosen at first.
        runtime: as of `predictor`, what computes the probabilities; default Keras.
        activation: as of `predictor`.
    """
    @functools.lru_cache(OPEN)
    def opened(name):
        model = choices[name]()
        return model, predictor(model, runtime or KERAS, activation=activation)

    def look(file, name):
        if file is None:
            return None, None
        model, predict = opened(name)
        try:
            pixels = load_image(file, model.preprocessing)
        except (OSError, ValueError) as error:
            raise gr.Error(f"{Path(file).name} cannot be read as an image: {error}", print_exception=False) from error
        (probabilities,) = predict(pixels[None])
        heat, _ = grad_cam(model, preprocess_input(pixels, model.preprocessing)[None], [np.argmax(probabilities)])
        # Of two classes with one name, of which ImageNet has some, the more probable one comes last, and stays.
        order = np.argsort(probabilities)
        return {model.labels[i]: float(probabilities[i]) for i in order}, overlay(pixels, heat[0])

    with gr.Blocks(title="Pre-activation ResNets", analytics_enabled=False) as blocks:
        gr.Markdown(TEXT.format(top=TOP))
        with gr.Row():
            with gr.Column():
                name = gr.Dropdown(list(choices), value=next(iter(choices)), label="Network")
                file = gr.Image(sources=["upload", "clipboard"], label="Image", type="filepath", height=280)
                file.preprocess = _path  # images are read as everywhere in this package
            with gr.Column():
                classes = gr.Label(num_top_classes=TOP, label="Classes")
                seen = gr.Image(
                    label="Where it sees the first class", interactive=False, buttons=["fullscreen", "download"]
                )
        gr.on([file.change, name.change], look, [file, name], [classes, seen], api_name="classify")
    return blocks


def _path(upload):
    return upload and upload.path
