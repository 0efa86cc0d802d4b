"""Tensors under other names than the known ones: by the tail of the names, else by order and shape, or not at all."""
from itertools import groupby


def match(tensors, wanted, where):
    """Returns {wanted name: array}, each array once.

    A tensor goes where the longest tail of its name, of whole parts, leads. Where that leads several tensors of as many
    axes to as many places, their order decides, if all shapes agree with it; else their shapes, if all are different.

    Args:
        tensors: {name: array} in the order of the file; "/" and "." divide a name into parts.
        wanted: {name: shape} in the order in which the zoo defines them; None in a shape is any number.
        where: what to call the file in errors.

    Raises:
        ValueError: not exactly one assignment fits; the message names tensors.
    """
    places = {}  # by each tail
    for name in wanted:
        parts = _parts(name)
        for start in range(len(parts) + 1):
            places.setdefault(parts[start:], []).append(name)
    alike = {}
    for name in tensors:
        parts = _parts(name)
        tail = next(parts[start:] for start in range(len(parts) + 1) if parts[start:] in places)
        alike.setdefault((tail, tensors[name].ndim), []).append(name)
    found = {}
    for (tail, axes), names in sorted(alike.items(), key=lambda item: -len(item[0][0])):
        free = [name for name in places[tail] if name not in found and len(wanted[name]) == axes]
        for order in _assignments([tensors[name].shape for name in names], free, wanted, names, where):
            found |= {place: tensors[name] for name, place in zip(names, order)}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(f"{where} has no tensor for {_first(missing)}; nothing was loaded.")
    return found


def _assignments(shapes, free, wanted, names, where):
    """Returns a list of one: the places, in the order of the tensors of these shapes."""
    # Keras lists the variables of each of the model's layers as they were made, or those that are not trained last.
    outer = list(dict.fromkeys(name.split(".")[0] for name in free))
    last = sorted(free, key=lambda name: (outer.index(name.split(".")[0]), "moving_" in name))
    orders = {tuple(free), tuple(last)}
    fitting = [order for order in orders if _fits(shapes, [wanted[name] for name in order])]
    if not fitting and len(set(shapes)) == len(shapes):
        order = [[name for name in free if _fits([shape], [wanted[name]])] for shape in shapes]
        fitting = [sum(order, [])] if all(len(places) == 1 for places in order) and len(free) == len(shapes) else []
    if len(fitting) != 1:
        raise ValueError(
            f"{where} has tensors whose names are not known, and order and shape do not tell {len(names)} of them "
            f"apart; nothing was loaded. Tensors: {_first(map('{} of shape {}'.format, names, shapes))}. Places: "
            f"{_first(map('{} of shape {}'.format, free, map(wanted.get, free)))}."
        )
    return fitting


def _fits(shapes, wanted):
    return len(shapes) == len(wanted) and all(
        len(shape) == len(place) and all(n in (size, None) for size, n in zip(shape, place))
        for shape, place in zip(shapes, wanted)
    )


def _parts(name):
    """Returns the parts of a name, each once where it is repeated at once."""
    return tuple(part for part, _ in groupby(name.replace(".", "/").split("/")))


def _first(names):
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
