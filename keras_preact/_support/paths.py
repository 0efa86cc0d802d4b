"""Paths as users give them."""
import os
import re
from pathlib import Path


def local(name: str, path: str | os.PathLike) -> Path:
    """Returns the path that the argument `name` names on this machine, with a leading "~" as the user's home.

    Raises:
        TypeError: no path.
        ValueError: an address of a remote store, such as "gs://bucket/folder", or an empty path.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`{name}` must be a path. Received: {path!r} of type {type(path).__name__}")
    text = os.fspath(path)
    # `Path` makes one slash of the two.
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+):/", text)
    if scheme:
        raise ValueError(
            f"`{name}` must be on this machine: mount {scheme[1]}:// as a folder, or copy from and to it. "
            f"Received: {text}"
        )
    if not text:
        raise ValueError(f"`{name}` must not be empty. Received: ''; the folder of now is '.'")
    return Path(os.path.expanduser(text))  # pathlib's own raises where "~name" is no user but a file


def existing(name: str, path: str | os.PathLike) -> Path:
    """Returns `local(name, path)` of a file or a folder that is there.

    Raises:
        TypeError: no path.
        ValueError: neither a file nor a folder.
    """
    found = local(name, path)
    if not found.exists():
        raise ValueError(f"`{name}` must name a file or a folder. {found} does not exist.")
    return no_pipe(name, found)


def no_pipe(name: str, path: Path) -> Path:
    """Returns `path` unless a pipe or a device is there: whoever opens one may wait for ever.

    Raises:
        ValueError: one is.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"`{name}` must name a file or a folder. {path} is a pipe or a device.")
    return path
