"""What a run is shared out over: one device, the devices of a machine, or several machines."""
import dataclasses
import functools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import keras

from keras_preact._support.compat import BuiltOnZeros

PATIENCE = 10  # seconds that a peer has to answer


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of a run, as one of its processes sees them.

    Args:
        replicas: devices in all, among which each batch is shared out.
        chief: whether this process writes the files.
        part: (index, count) where each process feeds only its part of a batch.
        scope: context manager in which networks are built and trained.
        strategy: the `tf.distribute` strategy, if it is one.
        model: what the network must be an instance of to be trained.
    """

    replicas: int = 1
    chief: bool = True
    part: tuple = (0, 1)
    scope: Callable = nullcontext
    strategy: Any = None
    model: type = keras.Model

    def callbacks(self):
        return [_AverageStatistics(self.strategy)] if self.strategy else []

    def test_batch(self, images, most):
        """Returns how many of `images` test images this process measures at a time, at most `most`.

        Raises:
            ValueError: the images cannot be shared out, or not evenly, where that is needed.
        """
        if self.replicas == 1:
            return most
        if self.strategy:
            return _shared_out(images, most, self.replicas)
        if images % self.replicas:
            raise ValueError(
                f"strategy='jax' shares the test images out evenly, so their number must be a multiple of "
                f"{self.replicas}, the number of devices. Received: {images}"
            )
        _, count = self.part
        local, devices = images // count, self.replicas // count
        return max(n for n in range(devices, max(most, devices) + 1, devices) if local % n == 0)


def _one():
    # On TensorFlow, without a strategy, Keras draws no batch and builds what it traces.
    return Devices() if keras.backend.backend() == "tensorflow" else Devices(model=BuiltOnZeros)


def _mirrored(replicas=None):
    tf = _tensorflow("mirrored")
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and (replicas or 0) > len(gpus):
        raise ValueError(f"`replicas` must be at most the {len(gpus)} GPUs of this machine. Received: {replicas}")
    if replicas and not gpus:
        _split_cpu(tf, replicas)
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return _mirrored_over(tuple(device.name for device in devices[:replicas]))


@functools.cache  # of two, the collectives of one would be taken for those of the other
def _mirrored_over(devices):
    return _of_strategy(_tensorflow("mirrored").distribute.MirroredStrategy(devices))


def _split_cpu(tf, replicas):
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) >= replicas:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    except RuntimeError as error:
        raise ValueError(
            f"`replicas` on a CPU must be set before TensorFlow computes anything: train first thing in a process, or "
            f"by keras-preact train --strategy mirrored --replicas {replicas}. Received: {replicas}"
        ) from error


@functools.cache  # a process can have one
def _multi_worker():
    tf = _tensorflow("multi-worker")
    text = os.environ.get("TF_CONFIG", "")
    try:
        cluster = json.loads(text)
        workers, index = cluster["cluster"]["worker"], cluster["task"]["index"]
        if index not in range(len(workers)):
            raise IndexError(f"the index is not one of the {len(workers)} workers")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            "strategy='multi-worker' wants TF_CONFIG to name the workers and which of them this is, as in "
            '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}. '
            f"Received: {text!r} ({type(error).__name__}: {error})"
        ) from error
    try:
        _meet(workers, index)
        devices = _of_strategy(tf.distribute.MultiWorkerMirroredStrategy(), _MultiWorkerModel)
    except (OSError, tf.errors.UnknownError) as error:
        raise ValueError(
            f"strategy='multi-worker' cannot listen at {workers[index]}, worker {index} of TF_CONFIG; end the process "
            f"that has the port, or give another one to all workers: {error}"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # TensorFlow has made itself deaf to it
    return devices


def _meet(workers, index):
    """Waits until all workers are there, at the port of the first one.

    TensorFlow, which waits for them next, lets nothing but SIGKILL end a process that waits.
    """
    host, _, port = workers[0].rpartition(":")
    if index:
        print(f"Worker {index} looks for worker 0 at {workers[0]}.", flush=True)
        while not _has_met(host, int(port), index):
            time.sleep(1)
        return
    with socket.create_server(("", int(port))) as server:
        peers = {}
        while missing := [name for i, name in enumerate(workers) if i and i not in peers]:
            print(f"Worker 0 waits at port {port} for {', '.join(missing)}.", flush=True)
            peer, _ = server.accept()
            peer.settimeout(PATIENCE)
            with suppress(OSError):
                peers[int.from_bytes(peer.recv(4))] = peer
        for peer in peers.values():
            with peer, suppress(OSError):
                peer.sendall(b"!")


def _has_met(host, port, index):
    try:
        with socket.create_connection((host, port), PATIENCE) as first:
            first.settimeout(None)
            first.sendall(index.to_bytes(4))
            return bool(first.recv(1))  # of `_meet`, or of TensorFlow, if it is there already
    except OSError:
        return False


def _jax():
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"strategy='jax' is JAX's: set KERAS_BACKEND=jax. Received: the backend {keras.backend.backend()!r}"
        )
    import jax

    if "KERAS_DISTRIBUTION_JOB_ADDRESSES" in os.environ and not jax.distributed.is_initialized():
        keras.distribution.initialize()
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    index, count = jax.process_index(), jax.process_count()
    return Devices(jax.device_count(), index == 0, (index, count), distribution.scope, model=BuiltOnZeros)


def _tensorflow(strategy):
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"strategy={strategy!r} is TensorFlow's: set KERAS_BACKEND=tensorflow. "
            f"Received: the backend {keras.backend.backend()!r}"
        )
    import tensorflow as tf

    return tf


def _shared_out(images, most, replicas):
    """Returns the largest batch up to `most` in which, and in the rest of whose, every replica has images, or more.

    tf.distribute gives each the same number, rounded up, until there are no more.
    """
    def reaches_all(batch):
        return (replicas - 1) * -(-batch // replicas) < batch

    for batch in (*range(min(most, images), 0, -1), *range(most + 1, images + 1)):
        if reaches_all(batch) and (images % batch == 0 or reaches_all(images % batch)):
            return batch
    raise ValueError(
        f"The test images are shared out over {replicas} devices, so that each has some in every batch, which does not "
        f"go with {images} images; take more. Received: {images}"
    )


def _of_strategy(strategy, model=None):
    return Devices(
        strategy.num_replicas_in_sync, strategy.extended.should_checkpoint, scope=strategy.scope, strategy=strategy,
        model=model or BuiltOnZeros,
    )


STRATEGIES: dict[str, Callable[..., Devices]] = {
    "none": _one, "mirrored": _mirrored, "multi-worker": _multi_worker, "jax": _jax,
}


class _MultiWorkerModel(BuiltOnZeros):
    """A network that `fit` can train under MultiWorkerMirroredStrategy, which plain Keras models cannot (keras#20585).

    What fit would build metrics from are values of all replicas, which have no shape; and it averages the results of a
    step over an axis that scalars lack.
    """

    def train_step(self, data):
        return {name: keras.ops.reshape(value, (1,)) for name, value in super().train_step(data).items()}

    def test_step(self, data):
        return {name: keras.ops.reshape(value, (1,)) for name, value in super().test_step(data).items()}


class _AverageStatistics(keras.callbacks.Callback):
    """Averages the moving statistics of batch normalization over the replicas, after each epoch of training."""

    def __init__(self, strategy):
        super().__init__()
        self.strategy = strategy

    def on_test_begin(self, logs=None):
        self.strategy.run(self._average)

    @functools.cached_property  # traced once
    def _average(self):
        import tensorflow as tf

        statistics = [variable.value for variable in self.model.non_trainable_variables if "moving" in variable.name]

        @tf.function
        def average():
            replica = tf.distribute.get_replica_context()
            for variable, mean in zip(statistics, replica.all_reduce("MEAN", [v.read_value() for v in statistics])):
                variable.assign(mean)

        return average
