"""Locks that the system takes back when a process ends, however it ends."""
import os

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(file, shared=False):
    """Locks what `file` or a descriptor has open, without waiting, until that is closed.

    Returns:
        True; False where another process holds it; None where the system or the disk knows no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def lock_folder(folder):
    """Locks a folder; returns the descriptor that closing unlocks it, or None where it could not be locked."""
    if fcntl is None:  # nor are folders opened there
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    if lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None
