"""Where the log of a run can be watched while it grows: TensorBoard, and Weights & Biases."""
import hashlib
import importlib.util

import keras

from keras_preact.data.streams import tensorflow
from keras_preact.training import runs


class WandB(keras.callbacks.Callback):
    """Sends each line of the log to Weights & Biases, as WANDB_PROJECT and WANDB_MODE say; a run that goes on, too.

    Args:
        folder: the `pathlib.Path` of the run.
        run: what run.json says of it.
    """

    def __init__(self, folder, run):
        super().__init__()
        self.folder, self.described = folder, run

    def on_train_begin(self, logs=None):
        import wandb

        # The same one for a run that goes on.
        name = hashlib.blake2b(str(self.folder.resolve()).encode(), digest_size=8).hexdigest()
        self.sent = wandb.init(
            name=self.folder.name, id=name, resume="allow", dir=self.folder, config=self.described,
        )

    def on_epoch_end(self, epoch, logs=None):
        row = runs.read_log(self.folder / runs.LOG)[-1]
        self.sent.log({column: float(value) for column, value in row.items() if value}, step=epoch + 1)

    def on_train_end(self, logs=None):
        self.sent.finish()


def _tensorboard(folder, run):
    tensorflow()  # writes the events on every backend
    return keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False)


# The callback of a (folder, run), and the packages that it needs.
TRACKERS = {"tensorboard": (_tensorboard, ("tensorboard", "tensorflow")), "wandb": (WandB, ("wandb",))}
CHOICES = "auto", "none", *TRACKERS


def check(track):
    """Raises ValueError where a package is missing that `track` needs."""
    missing = [name for name in TRACKERS.get(track, (None, ()))[1] if not importlib.util.find_spec(name)]
    if missing:
        raise ValueError(f"track={track!r} needs {' and '.join(missing)}: pip install {' '.join(missing)}.")


def callbacks(track, folder, run):
    """Returns the Keras callbacks of `track`, one of `CHOICES`; "auto" is TensorBoard on TensorFlow if it is there."""
    if track == "auto":
        there = keras.backend.backend() == "tensorflow" and importlib.util.find_spec("tensorboard")
        track = "tensorboard" if there else "none"
    return [TRACKERS[track][0](folder, run)] if track in TRACKERS else []
