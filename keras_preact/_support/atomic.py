"""Files and folders that are written whole or not at all: beside their place first, then renamed."""
import contextlib
import csv
import os
import secrets
import shutil
import time

from keras_preact._support.locks import lock_folder
from keras_preact._support.paths import local

PREFIX = ".keras_preact-new-"  # of the names of staged folders
REPLACED = "replaced"  # a folder in a staged one
YOUNG = 60  # seconds, in which a folder may not be locked yet


@contextlib.contextmanager
def staged(folder):
    """Yields a new folder inside `folder` to write into; it is removed at the end, with all that was not moved.

    Those that processes left there which were killed are removed, too.

    Raises:
        ValueError: `folder` cannot be written to.
    """
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    # Not by `tempfile`, which makes folders that only their owner may read.
    new = folder / f"{PREFIX}{secrets.token_hex(4)}"
    try:
        new.mkdir(parents=True)
    except OSError as error:
        raise ValueError(
            f"`path` must be in a folder that can be written to. Received: {folder} ({error.strerror})"
        ) from error
    lock = lock_folder(new)
    try:
        _remove_left(folder)
        yield new
    finally:
        shutil.rmtree(new)
        if lock is not None:
            os.close(lock)
        for parent in made:
            with contextlib.suppress(OSError):  # what was written stays
                parent.rmdir()


def _remove_left(folder):
    for left in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another process removes it
            lock = lock_folder(left) if time.time() - left.stat().st_mtime > YOUNG else None
            if lock is not None:
                _put_back(left / REPLACED, folder)
                shutil.rmtree(left)
                os.close(lock)


def _put_back(replaced, folder):
    """Puts back what was replaced, unless all is in its place."""
    before = list(replaced.glob("*"))
    if not all((folder / old.name).exists() for old in before):
        for old in before:
            os.replace(old, folder / old.name)


def publish(targets, overwrite):
    """Renames files or folders, {path in a staged folder: its place in the folder around it}, all or none.

    What is there already goes into the staged folder, before anything takes its place; or it raises.
    """
    first, target = next(iter(targets.items()))
    replaced, folder, placed = first.with_name(REPLACED), target.parent, []
    replaced.mkdir(exist_ok=True)
    try:
        for target in targets.values():
            if overwrite and target.exists():
                os.rename(target, replaced / target.name)
        for new, target in targets.items():
            os.rename(new, target)
            placed.append((new, target))
    except OSError:
        for new, target in placed:
            os.rename(target, new)
        _put_back(replaced, folder)
        raise


def replace(path, write):
    """Calls `write` with a path of the same name in a `staged` folder, and renames to `path` what it writes there."""
    path = local("path", path)
    with staged(path.parent) as folder:
        new = folder / path.name
        write(new)
        os.replace(new, path)


def write_text(path, text):
    replace(path, lambda new: new.write_text(text, encoding="utf-8"))


def write_csv(path, rows):
    """Writes dicts of the same keys, with a header."""
    def write(new):
        with open(new, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    replace(path, write)
