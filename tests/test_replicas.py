"""Training on several devices and several processes, against one."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import helpers
import keras
import numpy as np
import pytest
import replicas

from keras_preact import evaluate, load_run, preprocess_input
from keras_preact.training import distribution
from keras_preact.training.engine import Engine, train
from keras_preact.training.recipes import Recipe
from keras_preact.training.runs import read_log

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's")
SCRIPT = Path(__file__).parent / "replicas.py"


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, arguments)], text=True, env=os.environ | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )


def result(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


def two_addresses():
    sockets = [socket.socket() for _ in range(2)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    return addresses


def start_workers(folder, die=(0, 0), sent=0):
    addresses = two_addresses()
    return [
        start("worker", folder, die[index], int(sent), TF_CONFIG=json.dumps(
            {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        )) for index in range(2)
    ]


def weights(path):
    return list(np.load(path).values())


def largest_difference(a, b):
    return max(float(np.abs(u - v).max()) for u, v in zip(a, b, strict=True))


@pytest.mark.slow
@on_tensorflow
def test_steps_on_two_replicas():
    """On duplicated data, or with synchronized batch normalization, they equal one; else each has its statistics.

    One device whose batch normalization takes half the batch at a time equals two.
    """
    found = result(start("steps"))
    assert found["duplicated"] < 1e-6 and found["moved"] > 1e-3
    assert found["shared, synchronized"] < 1e-6 and found["shared"] > 1e-3
    assert found["in groups"] < 1e-6
    # The gradient of the whole batch is clipped, not that of each replica.
    assert found["clipped"] < 1e-6 and found["clipping"] > 1e-3


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirrored") / "run"
    return folder, result(start("mirrored", folder))


@pytest.mark.slow
@on_tensorflow
def test_mirrored_training(mirrored):
    """And that of a second network of another size, measured on an odd number of images."""
    folder, found = mirrored
    assert found["larger"] == 3
    assert found["epochs"] == 3 and (folder / "final.weights.h5").exists()
    assert "shared out over 2 devices, so `batch_size` must be a multiple of 2. Received: 15" in found["refused"]


@pytest.mark.slow
@on_tensorflow
def test_the_log_of_mirrored_training_is_of_every_test_image(mirrored):
    folder, data = mirrored[0], replicas.images()
    model, _ = load_run(folder)
    report, last = evaluate(model, data), read_log(folder / "log.csv")[-1]
    assert report.images == 40 and last["test_error"] == f"{report.top1_error:.2f}"
    probabilities = model.predict_on_batch(preprocess_input(data["x_test"], model.preprocessing))
    loss = -np.log(probabilities[np.arange(40), data["y_test"]]).mean()
    assert float(last["test_loss"]) == pytest.approx(loss, abs=2e-5)


@on_tensorflow
@pytest.mark.slow
def test_two_workers_equal_two_replicas_in_one_process(mirrored, tmp_path):
    folder = tmp_path / "run"
    found = [result(worker) for worker in start_workers(folder)]
    # The worker that is not the chief writes nothing, and sees the chief's log at best.
    assert found[0]["epochs"] == 3 and "multiple of 2" in found[1]["refused"]
    chief, other, one = (
        weights(path) for path in (folder / "worker0.npz", folder / "worker1.npz", mirrored[0] / "mirrored.npz")
    )
    assert largest_difference(chief, other) == 0
    assert largest_difference(chief, one) < 1e-5
    for row, expected in zip(read_log(folder / "log.csv"), read_log(mirrored[0] / "log.csv"), strict=True):
        assert row["test_error"] == expected["test_error"]
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), abs=2e-5)


@on_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_whose_worker_was_killed_goes_on_from_its_checkpoint(sent, mirrored, tmp_path):
    """The other one, which waits for the dead, ends by the same signal."""
    folder = tmp_path / "run"
    chief, dying = start_workers(folder, die=(0, 2), sent=sent)
    dying.communicate(timeout=300)
    chief.send_signal(sent)
    chief.communicate(timeout=20)
    assert dying.returncode == chief.returncode == -sent and 1 <= len(read_log(folder / "log.csv")) <= 2
    for worker in start_workers(folder):
        result(worker)
    assert largest_difference(weights(folder / "worker0.npz"), weights(mirrored[0] / "mirrored.npz")) < 1e-5


@on_tensorflow
@pytest.mark.slow
def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = {"cluster": {"worker": [address, "127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}}
        worker = start("worker", tmp_path, TF_CONFIG=json.dumps(config))
        _, err = worker.communicate(timeout=300)
    assert f"ValueError: strategy='multi-worker' cannot listen at {address}, worker 0 of TF_CONFIG" in err


@on_tensorflow
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("sent", [helpers.slow(signal.SIGTERM), signal.SIGINT])
def test_a_worker_that_waits_for_the_others_says_so_and_can_be_stopped(index, sent, tmp_path):
    config = {"cluster": {"worker": two_addresses()}, "task": {"type": "worker", "index": index}}
    with start("worker", tmp_path, TF_CONFIG=json.dumps(config)) as worker:
        line = worker.stdout.readline()
        assert line.startswith(("Worker 0 waits at port", "Worker 1 looks for worker 0 at")[index])
        worker.send_signal(sent)
        assert worker.wait(20) == -sent


@pytest.mark.parametrize("images, most, replicas, batch", [
    (501, 500, 2, 499),  # of 500 the last one would be alone
    (10_000, 500, 2, 500),
    (10_000, 500, 4, 500),
    (10_001, 500, 4, 499),  # the rest of 500 is 1; of 499, 21: 6, 6, 6 and 3
    (41, 2, 2, 3),
    (7, 500, 4, 7),  # 2, 2, 2 and 1
    (2, 500, 2, 2),
])
def test_every_replica_has_images_in_every_batch(images, most, replicas, batch):
    assert distribution.Devices(replicas, strategy=True).test_batch(images, most) == batch
    assert distribution.Devices().test_batch(images, most) == most


@pytest.mark.parametrize("images", [1, 3, 5])
def test_images_that_do_not_reach_every_replica_are_refused(images):
    with pytest.raises(ValueError, match=f"over 4 devices.*Received: {images}"):
        distribution.Devices(4, strategy=True).test_batch(images, 500)


@on_tensorflow
def test_replicas_that_cannot_be_had_are_refused():
    import tensorflow as tf

    tf.zeros(1)
    with pytest.raises(ValueError, match="`replicas` on a CPU must be set before .*--replicas 3. Received: 3"):
        distribution.STRATEGIES["mirrored"](3)
    for arguments in ({"replicas": 2}, {"strategy": "mirrored", "replicas": 0}):
        with pytest.raises(ValueError, match="`replicas` must be a positive integer, with strategy='mirrored'"):
            Engine(**arguments)


@on_tensorflow
def test_accumulation_is_refused_with_strategies(tmp_path):
    recipe = Recipe("tiny", "a test", 1, batch_size=16, accumulate=2)
    with pytest.raises(ValueError, match="not accumulated with .* Received: accumulate=2 with strategy='mirrored'"):
        train("PreActResNet20", replicas.images(), recipe, tmp_path / "run", engine=Engine("mirrored"))


@on_tensorflow
@pytest.mark.parametrize("text", [
    "", "{", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"index": 1}}',
    '{"cluster": {"worker": ["a:1"]}, "task": {"index": -1}}', '{"cluster": {"worker": []}, "task": {"index": 0}}',
])
def test_a_cluster_that_cannot_be_read_is_refused(text, monkeypatch, tmp_path):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=rf"wants TF_CONFIG to name the workers.*Received: {re.escape(repr(text))}"):
        train("PreActResNet20", {}, output=tmp_path / "run", engine=Engine("multi-worker"))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed")
def test_jax_processes_and_devices_equal_one(tmp_path):
    jax = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    one = start("jax", tmp_path / "one", **jax)
    devices = start("jax", tmp_path / "devices", XLA_FLAGS="--xla_force_host_platform_device_count=2", **jax)
    assert result(one)["epochs"] == 3
    assert "shared out over 2 devices" in result(devices)["refused"]
    cluster = {"KERAS_DISTRIBUTION_JOB_ADDRESSES": ",".join(two_addresses()), "KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}
    processes = [start("jax", tmp_path / "two", KERAS_DISTRIBUTION_PROCESS_ID=str(i), **jax, **cluster) for i in (0, 1)]
    for process in processes:
        result(process)
    expected = weights(tmp_path / "one" / "jax.npz")
    assert largest_difference(weights(tmp_path / "devices" / "jax.npz"), expected) < 1e-5
    chief, other = (weights(tmp_path / "two" / f"jax{i}.npz") for i in (0, 1))
    assert largest_difference(chief, other) == 0
    assert largest_difference(chief, expected) < 1e-5
