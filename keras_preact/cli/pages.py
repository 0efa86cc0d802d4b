"""The verb that opens a page in the browser: demo."""
import click

from keras_preact.cli.common import of_activation, of_runtime, on_keras, trained


@click.command()
@click.argument("model", metavar="[NETWORK]", required=False)
@click.option("--weights", help="Of a named network: a tag, a file, or hf://owner/name.")
@click.option("--runs", default="runs", metavar="FOLDER", help="Whose finished training runs can be chosen.")
@click.option("--host", default="127.0.0.1", help="Address to serve at; 0.0.0.0 for other machines, too.")
@click.option("--port", type=click.IntRange(1, 65535), default=7860, help="Port to serve at.")
@of_activation
@of_runtime
@on_keras
def demo(model, weights, runs, host, port, activation, runtime):
    """Serve a page that classifies images and shows where the network looks.

    NETWORK is chosen at first; the page also offers the weights that are bundled or cached, and the training runs.
    """
    try:
        from keras_preact import demo
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ImportError("The page needs gradio, which is missing: pip install 'keras_preact[demo]'") from error

    choices = demo.networks(runs)
    if model:
        name = f"{model} {weights}" if weights else model
        network = trained(model, weights)
        choices = {name: lambda: network} | choices
    demo.page(choices, runtime, activation).launch(server_name=host, server_port=port, theme=demo.THEME)


VERBS = (demo,)
