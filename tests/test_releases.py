"""Weights that other zoos publish at a URL, from a server on loopback that redirects as GitHub's releases do."""
import errno
import hashlib
import importlib
import json
import struct
import time

import pytest
import release_server
from release_server import DRIPPING, SILENCE, zipped

from keras_preact._support import atomic
from keras_preact.zoo import hub, releases

URL = "https://github.com/owner/zoo/releases/download/v1/net20-0651-d3e7771e.tf2.h5.zip"
NAME = "net20-0651-d3e7771e.tf2.h5"
CONTENT = b"weights " * 1000
SHA1 = f"sha1:{hashlib.sha1(CONTENT).hexdigest()}"


GOOD = zipped({NAME: CONTENT})


@pytest.fixture
def server(tmp_path, monkeypatch):
    with release_server.serving(tmp_path, monkeypatch) as server:
        server.answers = [(GOOD, None)]
        yield server


def converted(url=URL, published=SHA1, convert=None):
    def copy(file, path):
        assert file.name == url.rpartition("/")[2].removesuffix(".zip")
        path.write_bytes(b"converted " + file.read_bytes())

    return releases.converted(url, published, convert or copy)


def files_of(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def refused(*patterns):
    """Asks for the weights and returns the message of the error, in which the patterns are; nothing may be kept."""
    with pytest.raises(releases.ReleaseError) as caught:
        converted()
    message = str(caught.value)
    assert "\n" not in message
    for pattern in patterns:
        assert pattern in message, message
    assert releases.kept(URL) is None and not files_of(hub.folder())
    return message


def test_weights_are_fetched_once_and_compared_at_every_later_use(server):
    assert releases.size(URL) is None
    path = converted()
    assert path.read_bytes() == b"converted " + CONTENT and releases.size(URL) == len(CONTENT) + 10
    assert server.requests == [f"/github.com/{URL[19:]}", f"/assets/github.com/{URL[19:]}"]
    assert files_of(hub.folder()) == ["entry.json", "model.weights.h5"]
    told = json.loads((path.parent / "entry.json").read_text())
    sha256 = hashlib.sha256(b"converted " + CONTENT).hexdigest()
    assert told == {"url": URL, "hash": SHA1, "sha256": sha256}
    server.answers = [(500, None)]
    assert converted() == path and len(server.requests) == 2
    damaged = bytearray(path.read_bytes())
    damaged[50] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(releases.ReleaseError, match="the copy in the cache is damaged, and the server answered 500"):
        converted()
    server.answers = [(GOOD, None)]
    assert converted().read_bytes() == b"converted " + CONTENT


@pytest.mark.parametrize("answer, reason", [
    ((404, None), "the server answered 404. There is no such file any more."),
    ((403, None), "the server answered 403. Try again later."),
    ((429, None), "the server answered 429. Try again later."),
    ((503, None), "the server answered 503. Try again later."),
    ((GOOD, len(GOOD) // 2), "the connection failed or broke off"),
    ((GOOD, 0), "the connection failed or broke off"),
], ids=["404", "403", "429", "503", "cut", "empty"])
def test_a_failed_download_leaves_nothing_and_says_what_to_do(server, answer, reason):
    server.answers = [answer]
    message = refused(reason, f"http://127.0.0.1:{server.server_port}/github.com/owner/zoo/releases/", SHA1)
    for remedy in ("`keras-preact pull`", f"put {NAME}.zip", str(hub.folder()), releases.MIRROR):
        assert remedy in message
    server.answers = [(GOOD, None)]
    assert converted().is_file()


@pytest.mark.parametrize("answer, reason", [
    ((SILENCE, None), "the connection failed or broke off (TimeoutError: timed out)"),
    ((GOOD, DRIPPING), "(TimeoutError: fewer than 1000 bytes a second came in 0.4 seconds)"),
], ids=["silent", "dripping"])
def test_a_server_that_sends_next_to_nothing_is_left(server, monkeypatch, answer, reason):
    monkeypatch.setattr(releases, "PATIENCE", 0.4)
    server.answers = [answer]
    start = time.monotonic()
    message = refused(reason, f"http://127.0.0.1:{server.server_port}/github.com/owner/zoo/releases/", SHA1)
    assert time.monotonic() - start < 5 < len(GOOD) * 0.05
    assert "Try again when there is a network." in message and "`keras-preact pull`" in message
    server.answers = [(GOOD, None)]
    assert converted().is_file()


def test_a_server_that_is_slow_but_steady_is_waited_for(server, monkeypatch):
    monkeypatch.setattr(releases, "PATIENCE", 0.2)
    monkeypatch.setattr(releases, "SLOWEST", 3)
    content = CONTENT[:24]  # at 20 bytes a second
    server.answers = [(content, DRIPPING)]
    path = converted("https://storage.googleapis.com/zoo/net.h5", f"md5:{hashlib.md5(content).hexdigest()}")
    assert path.read_bytes() == b"converted " + content


@pytest.mark.parametrize("shown", [True, False])
def test_the_progress_of_a_download_is_told_on_stderr(server, monkeypatch, capsys, shown):
    module = importlib.import_module("huggingface_hub.utils.tqdm")  # which its package hides behind a class
    monkeypatch.setattr(module, "HF_HUB_DISABLE_PROGRESS_BARS", not shown)
    converted()
    out, err = capsys.readouterr()
    assert out == "" and (URL.rpartition("/")[2] in err) == shown


def test_without_a_network_what_is_cached_is_used_and_what_is_not_is_explained(server, monkeypatch):
    path = converted()
    monkeypatch.setenv(releases.MIRROR, "http://127.0.0.1:9")  # nobody listens there
    assert converted() == path
    with pytest.raises(releases.ReleaseError, match="the connection failed or broke off .*Connection refused"):
        converted(URL.replace("net20", "net56"))


WRONG = {
    "another": (zipped({NAME: CONTENT + b"x"}), "instead of " + SHA1[5:]),
    "none": (b"<html>Log in to this network</html>", "is not a zip file"),
    "two": (zipped({NAME: CONTENT, "second.h5": CONTENT}), "holds 2 files instead of one"),
    "no file": (zipped({}), "holds 0 files"),
    "above": (zipped({f"../{NAME}": CONTENT}), "without a path"),
    "absolute": (zipped({f"/{NAME}": CONTENT}), "without a path"),
    "windows": (zipped({f"C:\\{NAME}": CONTENT}), "without a path"),
    "folder": (zipped({f"{NAME}/": b""}), "without a path"),
    "a program": (zipped({"net20.py": CONTENT}), "instead of a .h5 file"),
    "large": (zipped({NAME: bytes(100_001)}), "has 100001 bytes, and no network has 100000"),
    "method": (GOOD.replace(struct.pack("<H", 8), struct.pack("<H", 99)), "cannot be unzipped"),
}


@pytest.mark.parametrize("content, reason", WRONG.values(), ids=WRONG)
def test_another_file_is_fetched_twice_and_refused(server, monkeypatch, content, reason):
    monkeypatch.setattr(releases, "MAX_FILE", 100_000)
    server.answers = [(content, None)]
    refused("was downloaded twice and is not what its zoo published", reason, SHA1, "Nothing of it was kept")
    assert len(server.requests) == 4
    server.answers = [(content, None), (GOOD, None)]
    assert converted().is_file()


def test_a_bomb_that_lies_about_its_size_is_not_unpacked_beyond_it(server):
    bomb = zipped({NAME: bytes(10_000_000)}, file_size=1000)
    server.answers = [(bomb, None)]
    sizes = []
    server.hook = lambda: sizes.extend(path.stat().st_size for path in hub.folder().rglob("*.h5"))
    refused("cannot be unzipped: Bad CRC-32")
    assert max(sizes, default=0) <= 1000


def test_a_file_that_is_no_zip(server):
    url, md5 = "https://storage.googleapis.com/zoo/net50.h5", f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    server.answers = [(CONTENT, None)]
    assert converted(url, md5).read_bytes() == b"converted " + CONTENT


@pytest.mark.parametrize("name, content", [(f"{NAME}.zip", GOOD), (NAME, CONTENT)], ids=["zip", "unzipped"])
def test_a_file_that_was_put_into_the_cache_is_used_and_compared(server, name, content):
    server.answers = [(500, None)]
    hub.folder().mkdir(parents=True)
    placed = hub.folder() / name
    placed.write_bytes(content[:-200] + bytes(200))
    with pytest.raises(releases.ReleaseError, match=f"{name} is not what {URL} was: .* Remove it"):
        converted()
    placed.write_bytes(content)
    assert converted().is_file() and not server.requests
    assert files_of(hub.folder()) == sorted(["entry.json", "model.weights.h5", name])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_conversion_leaves_nothing(server, error):
    def interrupted(file, path):
        path.write_bytes(b"half")
        raise error

    with pytest.raises(error):
        converted(convert=interrupted)
    assert not hub.folder().exists() or not list(hub.folder().iterdir())


def test_an_interrupted_download_leaves_nothing(server, monkeypatch):
    def interrupted(answer, file):
        file.write(answer.read(100))
        raise KeyboardInterrupt

    monkeypatch.setattr(releases, "_copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        converted()
    assert not hub.folder().exists() or not list(hub.folder().iterdir())


@pytest.mark.parametrize("second_converts", [True, False], ids=["at once", "while the first renames"])
def test_of_two_processes_at_once_both_succeed(server, monkeypatch, second_converts):
    """The second is done between the conversion of the first and its rename, or just before that."""
    paths = []

    def second(file, path):
        path.write_bytes(b"first")
        if second_converts:
            paths.append(converted())

    def publish(targets, overwrite):
        if not second_converts:
            monkeypatch.undo_publish()
            paths.append(converted())
        original(targets, overwrite=False)

    original = atomic.publish
    monkeypatch.undo_publish = lambda: monkeypatch.setattr(atomic, "publish", original)
    monkeypatch.setattr(atomic, "publish", publish if not second_converts else original)
    assert converted(convert=second) == paths[0] == releases.kept(URL)
    assert paths[0].read_bytes() == b"converted " + CONTENT


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_without_room_or_permission_is_named(server, code):
    def full(file, path):
        raise OSError(code, "as told")

    with pytest.raises(releases.ReleaseError, match=f"cannot be written to the cache, {hub.folder()}.*set HF_HOME"):
        converted(convert=full)
    hub.folder().parent.mkdir(exist_ok=True)
    hub.folder().write_text("a file where the folder of the cache belongs")
    with pytest.raises(releases.ReleaseError, match="cannot be written to the cache"):
        converted()
