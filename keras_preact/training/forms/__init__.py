"""The forms in which a network is trained; its weights and files are the same in each.

A form is a subclass of `keras.Model`. Where a run needs another class, as on several machines, `on` joins the two.
"""


def on(form, base):
    """Returns the class with the methods of `form`, a subclass of `keras.Model`, above those of `base`."""
    return form if issubclass(form, base) else type(form.__name__, (form, base), {})
