"""Objects in other processes: their environment, their errors and their silence."""
import os

import pytest

from keras_preact._support import processes
from keras_preact._support.processes import Remote


@pytest.fixture
def remote():
    started = []

    def start(*arguments):
        started.append(Remote("it", *arguments))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_a_process_starts_with_the_variables_it_is_given(remote, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    before = dict(os.environ)
    text = "$KERAS_BACKEND $TF_FORCE_GPU_ALLOW_GROWTH $TF_CPP_MIN_LOG_LEVEL".join("  ")
    expanded = remote("os.path", "expandvars", (text,), {"KERAS_BACKEND": "jax"})
    assert expanded.ask("strip") == "jax true 1"  # the last is the user's own
    assert os.environ == before
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    assert remote("os", "getenv", ("TF_CPP_MIN_LOG_LEVEL",)).ask("strip") == "3"


def test_errors_come_in_one_line_and_stay(remote):
    raising = remote("pathlib", "Path", ("/no/such\nfile",))
    assert raising.ask("read_text") is None
    assert raising.error.startswith("FileNotFoundError: ") and "/no/such" in raising.error and "\n" not in raising.error
    assert raising.ask("as_posix") is None and raising.error.startswith("FileNotFoundError: ")
    missing = remote("no_such_module", "anything")
    assert missing.ask("run") is None and missing.error == "ModuleNotFoundError: No module named 'no_such_module'"
    dying = remote("os", "_exit", (3,))
    assert dying.ask("run") is None and dying.error == "its process ended with exit code 3"


def test_starts_are_quiet_unless_they_fail_or_messages_are_asked_for(monkeypatch, capfd):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    with processes.quietly():
        os.write(2, b"held")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"
    with pytest.raises(ImportError), processes.quietly():
        os.write(2, b"why")
        raise ImportError
    assert capfd.readouterr().err == "why"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with processes.quietly():
        os.write(2, b"asked for")
    assert capfd.readouterr().err == "asked for"


def test_peak_memory_is_in_bytes():
    assert 1e8 < processes.peak_memory() < 1e11
