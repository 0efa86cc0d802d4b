"""Files and folders that are written whole or not at all: beside their place first, then renamed."""
import contextlib
import csv
import os
import secrets
import shutil

from keras_preact._support.paths import local


@contextlib.contextmanager
def staged(folder):
    """Yields a new folder inside `folder` to write into; it is removed at the end, with all that was not moved.

    Raises:
        ValueError: `folder` cannot be written to.
    """
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    # Not by `tempfile`, which makes folders that only their owner may read.
    new = folder / f"new-{secrets.token_hex(4)}"
    try:
        new.mkdir(parents=True)
    except OSError as error:
        raise ValueError(
            f"`path` must be in a folder that can be written to. Received: {folder} ({error.strerror})"
        ) from error
    try:
        yield new
    finally:
        shutil.rmtree(new)
        for parent in made:
            with contextlib.suppress(OSError):  # what was written stays
                parent.rmdir()


def publish(new, target, overwrite):
    """Renames `new`, in a staged folder, to `target`; what is there already goes into the staged folder, or raises.

    Where the second rename fails the first is taken back.
    """
    before = new.with_name("replaced")
    if overwrite and target.exists():
        os.rename(target, before)
    try:
        os.rename(new, target)
    except OSError:
        if before.exists():
            os.rename(before, target)
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
