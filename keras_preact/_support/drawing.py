"""Figures drawn into files, without pyplot: nothing of Matplotlib that a program has set changes."""
from contextlib import contextmanager

from keras_preact._support import atomic


def printable(label):
    """Returns a name that Matplotlib can draw: of a folder whose name is no text, with escapes."""
    return label.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@contextmanager
def drawing(path, rows=1, columns=1, figsize=None, **subplots):
    """Yields the axes of a new figure, and writes it as a PNG, whole or not at all.

    Args:
        path: of the file.
        rows, columns: of axes; of one alone they are no array.
        figsize: (width, height) in inches; default Matplotlib's.
        **subplots: as of Matplotlib's `Figure.subplots`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize, layout="constrained")
    yield figure.subplots(rows, columns, **subplots)
    atomic.replace(path, lambda new: figure.savefig(new, dpi=100))
