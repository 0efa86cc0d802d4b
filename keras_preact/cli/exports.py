"""The verb that writes a network for production: export."""

import click

from keras_preact.cli.common import POSITIVE, image_files, of_activation, of_network, on_keras, trained


@click.command()
@of_network()
@click.option("--format", default="savedmodel", help="savedmodel, onnx, litert, litert_int8, openvino or torch.")
@click.option("--output", required=True, metavar="PATH",
              help="Of a SavedModel the folder of versions, whose name it is served under; else the file.")
@click.option("--version", type=POSITIVE, help="Of a SavedModel.  [default: the next]")
@click.option("--calibration", metavar="DIR", help="Of litert_int8, a folder of images like those to come.")
@of_activation
@click.option("--overwrite", is_flag=True, help="Replace what is there already.")
@on_keras
def export(model, weights, format, output, version, calibration, activation, overwrite):
    """Write a network for production, with its preprocessing and labels.

    NETWORK is the name of one, a .keras file, the output folder of a training run, or hf://owner/name.
    """
    import numpy as np

    from keras_preact import export, load_image

    model = trained(model, weights)
    images = None
    if calibration:
        images = np.stack([load_image(file, model.preprocessing) for file in image_files(calibration)])
    exported = export(
        model, output, format, version=version, calibration=images, overwrite=overwrite, activation=activation
    )
    click.echo(f"{exported.path}  {exported.size:,} bytes, at most {exported.disagreement:.1g} from the Keras model")


VERBS = (export,)
