"""Writing whole or not at all, drawing without pyplot, and what a file is."""
import gzip
import os
import pickle
import subprocess
import sys
import zipfile

import helpers
import numpy as np
import pytest
from helpers import PACKAGE_PARENT
from PIL import Image

from keras_preact._support import atomic, kinds
from keras_preact._support.drawing import drawing


def test_what_was_there_stays_where_publishing_fails(tmp_path, monkeypatch):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "old").touch()
    with atomic.staged(tmp_path) as staged:
        (staged / "target").mkdir()
        renames, rename = [], os.rename

        def second_fails(*paths):
            renames.append(paths)
            if len(renames) == 2:
                raise OSError("the disk went away")
            rename(*paths)

        monkeypatch.setattr(os, "rename", second_fails)
        with pytest.raises(OSError, match="the disk went away"):
            atomic.publish({staged / "target": tmp_path / "target"}, overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "old"]


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_of_two_files_both_or_none_are_replaced(failing, tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    with atomic.staged(tmp_path) as staged:
        for name in ("a", "b"):
            (staged / name).write_text("new")
        renames, rename = [], os.rename

        def one_fails(*paths):
            renames.append(paths)
            if len(renames) == failing:
                raise OSError("the disk went away")
            rename(*paths)

        monkeypatch.setattr(os, "rename", one_fails)
        with pytest.raises(OSError, match="the disk went away"):
            atomic.publish({staged / name: tmp_path / name for name in ("a", "b")}, overwrite=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old", "b": "old"}


@pytest.mark.parametrize("at, left", [(0, "old"), (1, "old"), (2, "old"), (3, "old"), (4, "new")])
def test_what_a_killed_process_replaced_is_put_back(at, left, tmp_path, monkeypatch):
    """Killed before its rename number `at`, of two that put the old files away and two that put the new ones there."""
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    done = subprocess.run([sys.executable, "-c", f"""
import os, pathlib
from keras_preact._support import atomic
folder, renames, rename = pathlib.Path({str(tmp_path)!r}), [], os.rename
def killed(*paths):
    if len(renames) == {at}:
        os._exit(3)
    renames.append(rename(*paths))
os.rename = killed
with atomic.staged(folder) as staged:
    for name in ("a", "b"):
        (staged / name).write_text("new")
    atomic.publish({{staged / name: folder / name for name in ("a", "b")}}, overwrite=True)
    os._exit(3)
"""], env=os.environ | {"PYTHONPATH": str(PACKAGE_PARENT)})
    assert done.returncode == 3
    monkeypatch.setattr(atomic, "YOUNG", -1)
    with atomic.staged(tmp_path):
        pass
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": left, "b": left}


def test_a_file_is_whole_before_it_is_at_its_place(tmp_path):
    path, seen = tmp_path / "run.weights.h5", []
    path.write_text("old")

    def write(new):
        assert new.name == path.name  # Keras goes by how a name ends
        new.write_text("new")
        seen.extend([path.read_text(), new.stat().st_ino])

    atomic.replace(path, write)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("new", [path])
    assert seen == ["old", path.stat().st_ino]  # renamed, not copied


def test_what_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "log.csv"
    atomic.write_csv(path, [{"epoch": 1, "loss": "0.5"}])

    def fail(new):
        new.write_text("ep")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        atomic.replace(path, fail)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("epoch,loss\n1,0.5\n", [path])


WRITER = """
import sys, pathlib
from keras_preact._support import atomic
with atomic.staged(pathlib.Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print(folder.name, flush=True)
    input()
"""


def test_what_a_killed_process_left_is_removed_and_what_others_write_is_not(tmp_path):
    mine = tmp_path / "new-0a1b2c3d"
    mine.mkdir()
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    killed, alive, young = (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=helpers.PACKAGE_PARENT)
        for _ in range(3)
    )
    folders = [tmp_path / process.stdout.readline().strip() for process in (killed, alive, young)]
    for process in (killed, young):
        process.kill()
        process.communicate()
    for folder in (mine, *folders[:2]):
        os.utime(folder, (0, 0))
    with atomic.staged(tmp_path) as new:
        assert set(tmp_path.iterdir()) == {new, mine, *folders[1:]}
    assert (folders[1] / "half").read_text() == "half"
    alive.communicate("\n")
    assert alive.returncode == 0 and set(tmp_path.iterdir()) == {mine, folders[2]}


def test_folders_that_were_made_for_nothing_are_removed(tmp_path):
    with pytest.raises(KeyError), atomic.staged(tmp_path / "a" / "b"):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_what_a_file_is(tmp_path):
    for form in ("PNG", "JPEG", "GIF", "WEBP"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{form}.a", form)
    with zipfile.ZipFile(tmp_path / "a .zip archive.a", "w") as archive:
        archive.writestr("labels.txt", "cat")
    np.savez(tmp_path / "a.npz", x_train=np.zeros(3))
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "a pickle.a").write_bytes(pickle.dumps({}, protocol=4))
    (tmp_path / "Git LFS pointer.a").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    (tmp_path / "an HTML page.a").write_text("\n<!DOCTYPE html><title>404</title>")
    (tmp_path / "a gzip archive.a").write_bytes(gzip.compress(b"x"))
    for path in tmp_path.glob("*.a"):
        assert path.stem.lower() in kinds.kind_of(path).lower(), path
    assert [kinds.kind_of(tmp_path / name) for name in ("a.npz", "a.npy")] == ["an .npz archive", "an .npy array"]
    for content in (b"", b"P", b"hello" * 99, bytes(99)):
        (tmp_path / "b").write_bytes(content)
        assert kinds.kind_of(tmp_path / "b") is None
    assert kinds.kind_of(tmp_path / "nowhere") is None


def test_a_figure_needs_no_pyplot(tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setattr(matplotlib, "use", None)
    with drawing(tmp_path / "a.png", 1, 2, figsize=(4, 2)) as (left, right):
        left.plot([1, 2])
        right.plot([2, 1])
    content = (tmp_path / "a.png").read_bytes()
    # Width and height of a PNG stand after its signature and the name of its first chunk.
    assert [int.from_bytes(content[i:i + 4], "big") for i in (16, 20)] == [400, 200]
