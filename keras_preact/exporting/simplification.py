"""Networks for inference alone: the same function in fewer layers, as a plain Keras model."""
from collections import Counter

import keras
import numpy as np
from keras import layers

from keras_preact._support.settings import recursion_limit
from keras_preact.networks.graph import AUGMENTATION, nodes_of, opened

KERNELS = (layers.Conv2D, layers.Dense)
# How many standard deviations of its channel an offset may be: more would cost digits of the sums it is added to.
FARTHEST = 30


def simplify_for_inference(model: keras.Model, keep_relu: bool | None = None) -> keras.Model:
    """Returns a network of the same outputs, up to rounding, without the batch normalizations that can be folded away.

    One that follows a conv goes into the conv's kernel and bias. One at the start of a pre-activation branch follows an
    addition, and a ReLU follows it: relu(s x + t) is s relu(x + t / s) where s is positive. The factor goes into the
    kernels of the next convs; the offset is added once to the sum that all later units share, in the bias of the conv
    before it, and the next unit's bias exchanges it for its own. Where a channel's s is not positive, or its offset
    large, the layer stays.

    TensorFlow's graph optimizer gives up all its fusions of convs with what follows them where a ReLU takes a sum that
    the next addition takes, too ("remapper failed", TensorFlow 2.21). There a ReLU becomes the operation max(x, 0).

    Args:
        model: a network of the zoo, also with another head, or inside a Sequential or another functional model. Layers
            that are used more than once stay as they are.
        keep_relu: whether every ReLU stays one, as is best for other runtimes than TensorFlow; default by the backend.

    Returns:
        A functional `keras.Model` with the same input and outputs. Training it is not meaningful.

    Raises:
        ValueError: a model that has no graph of layers, such as a subclass of `keras.Model`.

    Example:

    >>> model = kp.PreActResNet20(weights="cifar10")
    >>> len(kp.simplify_for_inference(model).layers) < len(model.layers)
    True
    """
    plan = _Plan(model, keras.backend.backend() != "tensorflow" if keep_relu is None else keep_relu)
    plan.fold_after_convs()
    plan.fold_after_additions()
    return plan.build()


class _Plan:
    """What becomes of each layer of a model: it is copied, gets other weights, or is left out."""

    def __init__(self, model, keep_relu):
        self.source, self.model, self.keep_relu = model, opened(model), keep_relu
        self.sequence = nodes_of(self.model)
        uses = Counter(node.operation.name for node in self.sequence)
        self.nodes = {node.operation.name: node for node in self.sequence}
        self.layers = [layer for layer in self.model.layers if uses[layer.name] == 1]
        self.shared = len(self.nodes) < len(self.sequence)
        self.consumers, self.producers, self.copies = {}, {}, {}
        for node in self.sequence:
            layer = node.operation
            for tensor in node.output_tensors:
                self.producers[id(tensor)] = layer
            for tensor in node.input_tensors:
                self.consumers.setdefault(id(tensor), []).append(layer)
        self.outputs = {id(tensor) for tensor in self.model.outputs}
        self.weights = {layer.name: _kernel_and_bias(layer) for layer in self.layers if _has_kernel(layer)}
        # Of augmentation exporters draw numbers in inference, too.
        self.left_out = {layer.name for layer in self.layers if isinstance(layer, AUGMENTATION)}

    def next(self, layer):
        """Returns the layers that take its output; the outputs of the model count as None."""
        output = self.output(layer)
        return self.consumers.get(id(output), []) + [None] * (id(output) in self.outputs)

    def inputs(self, layer):
        return self.nodes[layer.name].input_tensors

    def output(self, layer):
        (output,) = self.nodes[layer.name].output_tensors
        return output

    def previous(self, layer):
        return self.producers[id(self.inputs(layer)[0])]

    def fold_after_convs(self):
        for layer in self.layers:
            if _is_normalization(layer):
                before = self.previous(layer)
                if self._gives_only_to(before, layer):
                    kernel, bias = self.weights[before.name]
                    scale, offset = _scale_and_offset(layer)
                    self.weights[before.name] = kernel * scale, bias * scale + offset
                    self.left_out.add(layer.name)

    def fold_after_additions(self):
        sums = [layer for layer in self.layers if isinstance(layer, layers.Add)]
        branches = [self.producers[id(self.inputs(layer)[-1])] for layer in sums]
        if self.shared or not all(map(self._gives_only_to, branches, sums)):
            return  # a gated branch has no conv to put an offset into
        offsets = {}
        for layer, branch in zip(sums, branches):
            kernel, bias = self.weights[branch.name]
            before, after = self._offset(self.inputs(layer)[0], offsets), self._fold(layer, len(bias))
            offsets[id(self.output(layer))] = after
            self.weights[branch.name] = kernel, bias + after - before

    def _gives_only_to(self, layer, taker):
        """Whether `layer` has a kernel and nothing stands between it and `taker`, which alone takes its output."""
        linear = layer.name in self.weights and layer.activation is keras.activations.linear
        return linear and self.next(layer) == [taker]

    def _offset(self, tensor, offsets):
        """Returns what was added to each channel of a shortcut."""
        if id(tensor) in offsets:
            return offsets[id(tensor)]
        layer = self.producers[id(tensor)]
        if _carries_offsets(layer):
            offset = self._offset(self.inputs(layer)[0], offsets)
            return np.pad(offset, (0, tensor.shape[_channel_axis(layer)] - len(offset)))
        return np.zeros(tensor.shape[_channel_axis(layer)])

    def _fold(self, addition, channels):
        """Leaves out the batch normalization after an addition, if there is one that can be, and returns its offset."""
        after = self.next(addition)
        branch = [layer for layer in after if not (isinstance(layer, layers.Add) or self._is_shortcut(layer))]
        nothing = np.zeros(channels)
        if len(branch) != 1 or not _is_normalization(branch[0]):
            return nothing
        (normalization,) = branch
        scale, offset = _scale_and_offset(normalization)
        takers = self._takers(normalization)
        if not takers or (scale <= 0).any():
            return nothing
        deviation = np.sqrt(np.asarray(normalization.moving_variance, "float64") + normalization.epsilon)
        if (np.abs(offset / scale) > FARTHEST * deviation).any():
            return nothing
        for taker in takers:
            kernel, bias = self.weights[taker.name]
            self.weights[taker.name] = kernel * scale[:, None], bias
        self.left_out.add(normalization.name)
        return offset / scale

    def _is_shortcut(self, layer):
        return layer is not None and _carries_offsets(layer) and all(
            isinstance(taker, layers.Add) or self._is_shortcut(taker) for taker in self.next(layer)
        )

    def _takers(self, normalization):
        """Returns the convs and dense layers that take its output through a ReLU; none if anything else does."""
        after = self.next(normalization)
        if len(after) != 1 or not _is_relu(after[0]):
            return []
        found, open_ = [], self.next(after[0])
        while open_:
            layer = open_.pop()
            if layer is not None and layer.name in self.weights:
                found.append(layer)
            elif isinstance(layer, (layers.GlobalAveragePooling2D, layers.ZeroPadding2D)):
                open_ += self.next(layer)
            else:
                return []
        return found

    def build(self):
        tensors = {}
        for node in self.sequence:
            layer = node.operation
            if isinstance(layer, layers.InputLayer):
                config = layer.get_config()
                found = keras.Input(batch_shape=config["batch_shape"], dtype=config["dtype"], name=layer.name)
            elif layer.name in self.left_out:
                found = tensors[id(node.input_tensors[0])]
            elif not self.keep_relu and _is_relu(layer) and self._takes_shared_sum(node):
                found = keras.ops.maximum(tensors[id(node.input_tensors[0])], 0.0)
            else:
                arguments, options = node.arguments.fill_in(tensors)
                found = self._copy(node)(*arguments, **options)
            for old, new in zip(node.output_tensors, keras.tree.flatten(found), strict=True):
                tensors[id(old)] = new
        inputs, outputs = (
            keras.tree.map_structure(lambda tensor: tensors[id(tensor)], structure)
            for structure in (self.model.input, self.model.output)
        )
        with recursion_limit(len(self.model.layers)):
            simple = keras.Model(inputs, outputs, name=self.source.name)
        for attribute in ("preprocessing", "labels"):  # of pretrained weights
            if hasattr(self.source, attribute):
                setattr(simple, attribute, getattr(self.source, attribute))
        return simple

    def _takes_shared_sum(self, node):
        before = self.producers[id(node.input_tensors[0])]
        while before.name in self.left_out:
            before = self.previous(before)
        return isinstance(before, layers.Add) and len(self.next(before)) > 1

    def _copy(self, node):
        """Returns what stands for the layer of `node`; of all uses of a layer the same."""
        layer = node.operation
        if layer.name not in self.copies:
            self.copies[layer.name] = self._copied(layer, node.input_tensors)
        return self.copies[layer.name]

    def _copied(self, layer, inputs):
        if not isinstance(layer, layers.Layer):
            return layer  # an operation of keras.ops, as this function itself makes them
        if isinstance(layer, keras.Model):
            return simplify_for_inference(layer, self.keep_relu)
        config, weights = layer.get_config(), layer.get_weights()
        if layer.name in self.weights:
            kernel, bias = self.weights[layer.name]
            config["use_bias"] = layer.use_bias or bool(bias.any())
            weights = [kernel, bias] if config["use_bias"] else [kernel]
        copy = type(layer).from_config(config)
        if weights:
            shapes = [tensor.shape for tensor in inputs]
            copy.build(shapes[0] if len(shapes) == 1 else shapes)
            copy.set_weights(weights)
        return copy


def _has_kernel(layer):
    return type(layer) in KERNELS and getattr(layer, "groups", 1) == 1


def _is_normalization(layer):
    return type(layer) is layers.BatchNormalization


def _is_relu(layer):
    if layer is None:
        return False
    config = layer.get_config()
    plain = not (config.get("max_value") or config.get("negative_slope") or config.get("threshold"))
    return type(layer) is layers.ReLU and plain or config.get("activation") == "relu" and not layer.weights


def _carries_offsets(layer):
    """Whether the layer only leaves out pixels or adds channels of zeros, as the shortcuts of option A do."""
    if type(layer) is layers.MaxPooling2D:
        return tuple(layer.pool_size) == (1, 1)
    return type(layer) is layers.ZeroPadding2D and layer.data_format != keras.config.image_data_format()


def _channel_axis(layer):
    return 1 if keras.config.image_data_format() == "channels_first" else -1


def _kernel_and_bias(layer):
    kernel = np.asarray(layer.get_weights()[0], "float64")
    bias = layer.get_weights()[1] if layer.use_bias else np.zeros(kernel.shape[-1])
    return kernel, np.asarray(bias, "float64")


def _scale_and_offset(layer):
    """Returns (s, t) of a batch normalization: s x + t is its output at inference."""
    values = {v.name: np.asarray(value, "float64") for v, value in zip(layer.weights, layer.get_weights())}
    scale = values.get("gamma", 1.0) / np.sqrt(values["moving_variance"] + layer.epsilon)
    return scale, values.get("beta", 0.0) - values["moving_mean"] * scale
