"""The checks that every room makes of an argument."""
import difflib
from numbers import Integral


def check_choice(name, value, choices):
    """Raises ValueError where `value` is none of `choices`; the message lists them and names the nearest."""
    if any(value is choice or value == choice and type(value) is type(choice) for choice in choices):
        return
    near = difflib.get_close_matches(str(value), [choice for choice in choices if isinstance(choice, str)], n=1)
    raise ValueError(
        f"`{name}` must be one of {', '.join(map(repr, choices))}. Received: {value!r}"
        + (f"; did you mean {near[0]!r}?" if near else "")
    )


def from_values(kind, values, source):
    """Returns `kind(**values)`, a dataclass of what the file `source` says.

    Raises:
        ValueError: values that the dataclass refuses, or lacks.
    """
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{source} is damaged, or of a newer keras_preact (pip install -U keras_preact): {error}"
        ) from error


def as_list(value):
    """Returns `list(value)` of what has items, such as a shape of NumPy's or TensorFlow's, and [] of all else."""
    try:
        return [] if isinstance(value, str) else list(value)
    except TypeError:
        return []


def is_count(value):
    """Whether `value` is a positive integer, of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0


def check_count(name, value):
    """Raises ValueError where `value` is no positive integer."""
    if not is_count(value):
        raise ValueError(f"`{name}` must be a positive integer. Received: {value!r}")
