"""Files that other zoos publish at a URL: fetched, compared with their hash, unzipped, and what is made of them.

`urllib` downloads: it follows redirects, proxies and file:// URLs. `keras.utils.get_file` does not serve: it waits for
ever for a server that is silent, and knows no SHA-1 and no hash of a file within a zip, which is what the zoos publish.
"""
import contextlib
import hashlib
import json
import os
import shutil
import time
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from keras_preact._support import atomic
from keras_preact.zoo import hub

MIRROR = "KERAS_PREACT_MIRROR"  # of the environment: a base URL, under which host and path of every URL stand
MAX_FILE = 1_000_000_000  # bytes; the largest that is published has 0.41 of that
PATIENCE, SLOWEST = 30, 1000  # seconds in which a server must send something, and so many bytes a second
WEIGHTS, ENTRY = "model.weights.h5", "entry.json"  # what an entry of the cache holds


class ReleaseError(OSError):
    """What another zoo publishes cannot be had, or is not what it published; says URL, hash and remedy."""


def kept(url):
    """Returns the path of the weights that were made of a file, once their sha256 is the recorded one, or None."""
    path = _entry(url) / WEIGHTS
    try:
        recorded = json.loads(path.with_name(ENTRY).read_text(encoding="utf-8"))["sha256"]
        return path if hub.digest(path) == recorded else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def size(url):
    """Returns the size in bytes of the weights that were made of a file, or None where there are none yet."""
    path = _entry(url) / WEIGHTS
    return path.stat().st_size if path.is_file() else None


def converted(url, published, convert):
    """Returns the path of the weights that `convert` makes of a file, made when they are first asked for.

    Args:
        url: of the file, or of a zip that holds it alone.
        published: "algorithm:hexadecimal digits", the hash of the file, unzipped, as its zoo publishes it.
        convert: called with the path of the file and that of the weights to write.

    Raises:
        ReleaseError: the file cannot be had, is not the published one, or there is no room for it.
    """
    path = kept(url)
    if path is None:
        entry = _entry(url)
        with _explained(url, published), atomic.staged(entry.parent) as folder:
            new = folder / "entry"
            new.mkdir()
            file = _placed(url, published, folder) or _fetched(url, published, folder)
            convert(file, new / WEIGHTS)
            told = {"url": url, "hash": published, "sha256": hub.digest(new / WEIGHTS)}
            (new / ENTRY).write_text(json.dumps(told, indent=2), encoding="utf-8")
            _publish(new, entry, url)
        path = entry / WEIGHTS
    return path


def _publish(new, entry, url):
    if kept(url) is None:  # or another process was faster
        try:
            atomic.publish({new: entry}, overwrite=True)
        except OSError:
            if kept(url) is None:
                raise


def _entry(url):
    return hub.folder() / _name(url).split(".")[0]


def _name(url):
    return url.rpartition("/")[2]


def _placed(url, published, folder):
    """Returns the path of the file where somebody has put it, unzipped or not, into the cache."""
    for path in (hub.folder() / _name(url), hub.folder() / _name(url).removesuffix(".zip")):
        if path.is_file():
            try:
                return _compared(path, published, folder)
            except ValueError as error:
                raise ReleaseError(f"{path} is not what {url} was: {error}. Remove it.") from error
    return None


def _fetched(url, published, folder):
    """Returns the path of the file, downloaded into `folder` and, where it is not the published one, once more."""
    for last in (False, True):
        try:
            return _compared(_download(url, folder), published, folder)
        except ValueError as error:
            if last:
                raise ReleaseError(
                    f"{_address(url)} was downloaded twice and is not what its zoo published: {error}. Nothing of it "
                    f"was kept. Try again later; if that stays so, a proxy changes the file. {_by_hand(url, published)}"
                ) from error


def _download(url, folder):
    try:
        with urlopen(_address(url), timeout=PATIENCE) as answer, open(folder / _name(url), "wb") as file:
            _copy(answer, file)
    except HTTPError as error:
        error.close()
        remedy = "There is no such file any more." if error.code in (404, 410) else "Try again later."
        raise _Failed(f"the server answered {error.code}. {remedy}") from error
    except (OSError, HTTPException, ValueError) as error:  # the last: a mirror that is no URL
        if isinstance(error, OSError) and error.errno in hub.NO_ROOM:
            raise
        reason = f"the connection failed or broke off ({type(error).__name__}: {error})"
        raise _Failed(f"{reason}. Try again when there is a network.") from error
    return folder / _name(url)


def _copy(answer, file):
    """Copies what a server sends, with a progress bar on stderr, as long as it sends enough."""
    from huggingface_hub.utils import tqdm

    size = answer.headers["Content-Length"]
    with tqdm(desc=Path(file.name).name, total=size and int(size), unit="B", unit_scale=True) as bar:
        start, before = time.monotonic(), 0
        while block := answer.read1(2**16):
            bar.update(file.write(block))
            if time.monotonic() - start > PATIENCE:
                if file.tell() - before < PATIENCE * SLOWEST:
                    raise TimeoutError(f"fewer than {SLOWEST} bytes a second came in {PATIENCE} seconds")
                start, before = time.monotonic(), file.tell()
    if size and file.tell() != int(size):
        raise ConnectionError(f"{file.tell()} bytes of {size} came")


class _Failed(Exception):
    """A download failed; why, and the first of the remedies."""


def _address(url):
    """Returns the URL to fetch from: that of the mirror, if there is one."""
    mirror = os.environ.get(MIRROR)
    return f"{mirror.rstrip('/')}/{url.partition('://')[2]}" if mirror else url


def _compared(path, published, folder):
    """Returns `path`, or that of what was in it, unzipped into `folder`, once its hash is the published one.

    Raises:
        ValueError: it is another one, or a zip of something else than one file.
    """
    if path.suffix == ".zip":
        path = _unzipped(path, folder)
    algorithm, _, expected = published.partition(":")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        raise ValueError(f"the {algorithm} of {path.name} is {found} instead of {expected}")
    return path


def _unzipped(path, folder):
    """Returns the path of the only member of a zip; where that wants to lie and how large it is, is not believed."""
    target = folder / path.stem
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) != 1:
                raise ValueError(f"{path.name} holds {len(members)} files instead of one")
            name, claimed = members[0].filename, members[0].file_size
            if not name.endswith(".h5") or any(c in name for c in "/\\:"):
                raise ValueError(f"{path.name} holds {name!r} instead of a .h5 file without a path")
            if claimed > MAX_FILE:
                raise ValueError(f"{name!r} in {path.name} has {claimed} bytes, and no network has {MAX_FILE}")
            with archive.open(name) as member, open(target, "wb") as file:
                shutil.copyfileobj(member, file)  # of no more than the claimed bytes
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # the last: encrypted, unknown method
        raise ValueError(f"{path.name} cannot be unzipped: {error}") from error
    return target


@contextlib.contextmanager
def _explained(url, published):
    """Turns what goes wrong on the way to an entry of the cache into a `ReleaseError` that says what to do."""
    try:
        yield
    except ReleaseError:
        raise
    except _Failed as error:
        damaged = "the copy in the cache is damaged, and " if (_entry(url) / WEIGHTS).exists() else ""
        raise ReleaseError(f"{_address(url)}: {damaged}{error} {_by_hand(url, published)}") from error
    except (OSError, ValueError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in hub.NO_ROOM:
            raise
        raise ReleaseError(
            f"The weights of {url} cannot be written to the cache, {hub.folder()}: {cause.strerror}. Make room there, "
            "or set HF_HOME to another folder."
        ) from error


def _by_hand(url, published):
    return (
        f"Or fetch the weights beforehand, where there is a network, by `keras-preact pull`; put {_name(url)} "
        f"({published}) into {hub.folder()}; or name a mirror by {MIRROR}."
    )
