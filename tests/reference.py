"""The forward pass of pre-activation ResNets in NumPy, written from the paper alone (He, Zhang, Ren, Sun, 2016).

It shares no code with the package, so that agreement between the two means something. All arithmetic is float64, the
layout is NHWC, and batch normalisation uses the moving statistics (inference). Weights are looked up as
"layer_name/variable_name"; a missing one raises KeyError, an unused one AssertionError.
"""

import numpy as np

# Fig. 4, b = batch normalisation, r = ReLU: what stands before each conv, after each conv but the last, after the
# last conv inside the branch, and after the addition.
ORDERS = {
    "original": ("", "br", "b", "r"),
    "bn_after_addition": ("", "br", "", "br"),
    "relu_before_addition": ("", "br", "br", ""),
    "relu_preactivation": ("r", "b", "b", ""),
    "full_preactivation": ("br", "", "", ""),
}
KERNELS = {"single": (3,), "basic": (3, 3), "bottleneck": (1, 3, 1)}
SHORTCUTS = ("zero_pad", "project_on_change", "project_stages", "project_always")
JOINS = ("plain", "scaled", "exclusive_gate", "shortcut_gate", "dropout")


def conv(x, kernel, bias, strides, padding="torch"):
    """Cross-correlate x (n, h, w, in) with kernel (kh, kw, in, out), padded kernel//2 on every side or as SAME."""
    (kh, kw), (h, w) = kernel.shape[:2], x.shape[1:3]
    if padding == "torch":
        pads = [(kh // 2, kh // 2), (kw // 2, kw // 2)]
    elif padding == "same":
        totals = [max((-(-size // strides) - 1) * strides + k - size, 0) for size, k in ((h, kh), (w, kw))]
        pads = [(total // 2, total - total // 2) for total in totals]
    else:
        raise ValueError(f"padding must be 'torch' or 'same', got {padding!r}")
    x = np.pad(x, [(0, 0), *pads, (0, 0)])
    rows, cols = (x.shape[1] - kh) // strides + 1, (x.shape[2] - kw) // strides + 1
    y = np.zeros((len(x), rows, cols, kernel.shape[3]))
    for i in range(kh):
        for j in range(kw):
            y += np.tensordot(x[:, i:, j:][:, ::strides, ::strides][:, :rows, :cols], kernel[i, j], axes=1)
    return y if bias is None else y + bias


def max_pool(x, pool_padding):
    """Max-pool 3x3 with stride 2, padded by one on every side with zeros or minus infinity."""
    value = {"zeros": 0.0, "minus_infinity": -np.inf}[pool_padding]
    x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=value)
    rows, cols = (x.shape[1] - 3) // 2 + 1, (x.shape[2] - 3) // 2 + 1
    taps = [x[:, i:, j:][:, ::2, ::2][:, :rows, :cols] for i in range(3) for j in range(3)]
    return np.max(taps, axis=0)


class Layers:
    """The named layers of a network, which remember the weights they have used."""

    def __init__(self, weights, epsilon, padding):
        self.weights, self.epsilon, self.padding, self.used = weights, epsilon, padding, set()

    def get(self, name):
        """Return a weight in float64 and mark it as used."""
        self.used.add(name)
        return np.asarray(self.weights[name], dtype=np.float64)

    def conv(self, x, name, size, strides, needs_bias=False):
        """Apply a conv, which has a bias if the weights hold one."""
        kernel = self.get(name + "/kernel")
        assert kernel.shape[:2] == (size, size), f"{name}: expected a {size}x{size} kernel, got {kernel.shape}"
        has_bias = needs_bias or name + "/bias" in self.weights
        return conv(x, kernel, self.get(name + "/bias") if has_bias else None, strides, self.padding)

    def bn(self, x, name, scale=True):
        """Normalise with the moving statistics."""
        x = (x - self.get(name + "/moving_mean")) / np.sqrt(self.get(name + "/moving_variance") + self.epsilon)
        return (x * self.get(name + "/gamma") if scale else x) + self.get(name + "/beta")

    def activate(self, x, steps, bn_name):
        """Apply the steps of an order, such as "br", "b", "r" or nothing."""
        for step in steps:
            x = self.bn(x, bn_name) if step == "b" else np.maximum(x, 0.0)
        return x


def residual_unit(layers, x, prefix, *, order, unit, strides, first_in_stage, preactivated, shortcut, join):
    """Compute one residual unit; preactivated says that x already carries the first conv's pre-activation."""
    before, between, tail, after = ORDERS[order]
    active = x if preactivated else layers.activate(x, before, prefix + "_bn1")
    branch, last = active, len(strides)
    for i, (size, stride) in enumerate(zip(KERNELS[unit], strides, strict=True), start=1):
        if i > 1:
            branch = layers.activate(branch, before, f"{prefix}_bn{i}")
        branch = layers.conv(branch, f"{prefix}_conv{i}", size, stride)
        branch = layers.activate(branch, tail if i == last else between, f"{prefix}_bn{i}")

    stride, changes = max(strides), branch.shape[3] != x.shape[3]
    project = shortcut == "project_always" or (shortcut != "zero_pad" and changes)
    project = project or (shortcut == "project_stages" and first_in_stage)
    source = active if project or changes else x

    kind, *values = join
    if kind == "scaled" and values[0] == 0:  # a plain net: the shortcut is absent, and so are its weights
        return layers.activate(values[1] * branch, after, prefix + "_out_bn")
    if project:
        skip = layers.conv(source, prefix + "_shortcut_conv", 1, stride)
        skip = layers.bn(skip, prefix + "_shortcut_bn") if "b" in tail else skip
    else:
        skip = source[:, ::stride, ::stride]
        skip = np.pad(skip, [(0, 0), (0, 0), (0, 0), (0, branch.shape[3] - skip.shape[3])])
    assert skip.shape == branch.shape, f"{prefix}: shortcut {skip.shape}, branch {branch.shape}"  # never broadcast
    if kind == "scaled":
        skip, branch = values[0] * skip, values[1] * branch
    if kind in ("exclusive_gate", "shortcut_gate"):
        gate = layers.conv(source, prefix + "_gate_conv", 1, stride, needs_bias=True)
        gate = (1 + np.tanh(gate / 2)) / 2  # the logistic function, without overflow
        assert gate.shape == branch.shape, f"{prefix}: gate {gate.shape}, branch {branch.shape}"
        skip, branch = (1 - gate) * skip, gate * branch if kind == "exclusive_gate" else branch
    return layers.activate(skip + branch, after, prefix + "_out_bn")


def forward(weights, images, *, units, unit="basic", order="full_preactivation", shortcut="zero_pad", join=("plain",),
            stem="conv3x3", first_activation="stem", stride_on="first_conv", epsilon=1e-5, pool_padding="zeros",
            normalize_input=False, padding="torch"):
    """Return the logits (n, classes) of a network for images (n, h, w, c); units counts the units of each stage."""
    for value, choices in ((shortcut, SHORTCUTS), (join[0], JOINS), (stem, ("conv3x3", "conv7x7_pool")),
                           (first_activation, ("stem", "unit", "both")),
                           (stride_on, ("first_conv", "conv3x3", "last_unit"))):
        if value not in choices:
            raise ValueError(f"expected one of {choices}, got {value!r}")
    before, between, _, _ = ORDERS[order]
    kernels = KERNELS[unit]
    layers = Layers(weights, epsilon, padding)

    x = np.asarray(images, dtype=np.float64)
    if normalize_input:
        x = layers.bn(x, "input_bn", scale=False)
    x = layers.conv(x, "stem_conv", *((3, 1) if stem == "conv3x3" else (7, 2)))
    x = layers.activate(x, between, "stem_bn")
    if first_activation != "unit":
        x = layers.activate(x, before, "stem_bn")
    if stem == "conv7x7_pool":
        x = max_pool(x, pool_padding)

    strided_conv = 0 if stride_on == "first_conv" else kernels.index(3)
    for s, count in enumerate(units, start=1):
        for u in range(1, count + 1):
            halves = (u == count and s < len(units)) if stride_on == "last_unit" else (u == 1 and s > 1)
            x = residual_unit(
                layers, x, f"stage{s}_unit{u}", order=order, unit=unit, shortcut=shortcut, join=join,
                strides=[2 if halves and i == strided_conv else 1 for i in range(len(kernels))],
                first_in_stage=u == 1, preactivated=s == u == 1 and first_activation == "stem")
    x = layers.activate(x, before, "closing_bn")
    logits = x.mean(axis=(1, 2)) @ layers.get("predictions/kernel") + layers.get("predictions/bias")
    unused = sorted(set(weights) - layers.used)
    assert not unused, f"weights that no layer used: {unused}"
    return logits
