"""Objects in processes of their own, each with its own backend of Keras, which start without messages."""
import contextlib
import importlib
import multiprocessing
import os
import sys
import tempfile
import textwrap

MESSAGES = "TF_CPP_MIN_LOG_LEVEL"
# Several processes share one GPU, of which each backend would take nearly all memory.
ENVIRONMENT = {MESSAGES: "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Remote:
    """An object in a process of its own, which is asked for what its methods return.

    Args:
        name: what it is called in messages.
        module: the name of the module that has its class; imported in the new process, and nothing before it.
        maker: the name of the class in there.
        arguments: of the class; plain values.
        variables: of the environment of the process.

    Attributes:
        error: in one line, why it failed; empty until then.
    """

    def __init__(self, name, module, maker, arguments=(), variables=None):
        context = multiprocessing.get_context("spawn")
        self.name, self.error, (self.pipe, other) = name, "", context.Pipe()
        self.process = context.Process(target=_serve, args=(other, module, maker, arguments), daemon=True)
        # What the caller's script imports at its top is imported there, too, before anything of ours runs.
        with _environment(ENVIRONMENT | dict(os.environ) | (variables or {})):
            self.process.start()
        other.close()

    def ask(self, method, *arguments):
        """Returns what the method returns, or None once anything failed."""
        if self.error:
            return None
        try:
            self.pipe.send((method, arguments))
            answer, self.error = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            answer, self.error = None, f"its process ended with exit code {self.process.exitcode}"
        return answer

    def stop(self):
        self.process.terminate()
        self.process.join()


@contextlib.contextmanager
def _environment(variables):
    changed = {name: os.environ.get(name) for name, value in variables.items() if os.environ.get(name) != value}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in changed.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe, module, maker, arguments):
    served = None
    while True:
        method, values = pipe.recv()
        try:
            if served is None:
                with quietly():
                    made = importlib.import_module(module)
                served = getattr(made, maker)(*arguments)
            pipe.send((getattr(served, method)(*values), ""))
        except Exception as error:
            pipe.send((None, textwrap.shorten(f"{type(error).__name__}: {error}", 400)))


@contextlib.contextmanager
def quietly():
    """Holds back what a start of TensorFlow writes to stderr, unless it fails or TF_CPP_MIN_LOG_LEVEL asks for it."""
    if os.environ.setdefault(MESSAGES, "3") != "3":
        yield
        return
    # Some messages come before TensorFlow reads that level, straight to the file descriptor.
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def peak_memory():
    """Returns the peak memory of this process in bytes."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
