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


def is_count(value):
    """Whether `value` is a positive integer, of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0
