"""Tiny networks for tests: built with onnx.helper, random weights, nothing of the compiler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 3


class Builder:
    """Adds nodes one by one; tensors are named by their maker."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.channels: dict[str, int] = {"image": CHANNELS}

    def weight(self, *shape: int, scale: float = 1.0, shift: float = 0.0) -> str:
        name = f"weight_{len(self.weights)}"
        values = self.rng.standard_normal(shape) * scale + shift
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def constant(self, values: object, dtype: type = np.float32) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def node(self, op: str, *inputs: str, channels: int | None = None, **attributes: object) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"n{len(self.nodes)}", **attributes))
        self.channels[name] = channels if channels is not None else self.channels.get(inputs[0], 0)
        return name

    def conv(
        self, x: str, channels: int, kernel: int | tuple[int, int] = 3, group: int = 1, bias: bool = True, **attributes: object
    ) -> str:
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        depth = self.channels[x] // group
        weights = self.weight(channels, depth, *kernel, scale=(depth * kernel[0] * kernel[1]) ** -0.5)
        biases = [self.weight(channels, scale=0.3)] if bias else []
        return self.node("Conv", x, weights, *biases, channels=channels, kernel_shape=list(kernel), group=group, **attributes)

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def batch_norm(self, x: str) -> str:
        c = self.channels[x]
        variance = self.constant(np.abs(self.rng.standard_normal(c)) + 0.5)
        return self.node(
            "BatchNormalization", x, self.weight(c, shift=1.0), self.weight(c), self.weight(c), variance, epsilon=1e-3
        )

    def model(
        self, output: str, height: int, width: int, *, classes: int | None = 5, batch: int | str = 1, opset: int = 18
    ) -> onnx.ModelProto:
        """``output`` flattened and mixed by a random Gemm, so that each cell moves each output; or each cell an output."""
        flat = self.node("Flatten", output)
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, CHANNELS, height, width])
        graph = helper.make_graph(self.nodes, "tiny", [image], [], self.weights)
        graph.output.append(helper.make_empty_tensor_value_info(flat))
        probe = onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), data_prop=True
        )
        size = probe.graph.output[0].type.tensor_type.shape.dim[1].dim_value
        assert size, "the shapes of a tiny network are known"
        scores = flat
        if classes is not None:
            scores = self.node("Gemm", flat, self.weight(size, classes, scale=size**-0.5), self.weight(classes))
        score = helper.make_tensor_value_info(scores, TensorProto.FLOAT, [batch, classes or size])
        graph = helper.make_graph(self.nodes, "tiny", [image], [score], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


Network = Callable[[Builder], str]
NETWORKS: dict[str, Network] = {}


def tiny(network: Network) -> Network:
    NETWORKS[network.__name__] = network
    return network


def save(name: str, path: Path, height: int = 20, width: int = 20, **options: object) -> Path:
    """The network ``name`` as an ONNX file."""
    builder = Builder()
    onnx.save(builder.model(NETWORKS[name](builder), height, width, **options), path)  # type: ignore[arg-type]
    return path


@tiny
def chain(b: Builder) -> str:
    x = b.relu(b.conv("image", 4, pads=[1, 1, 1, 1]))
    x = b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    return b.relu(b.conv(x, 6, pads=[1, 1, 1, 1]))


@tiny
def residual(b: Builder) -> str:
    x = b.relu(b.conv("image", 4, pads=[1, 1, 1, 1]))
    y = b.conv(b.relu(b.conv(x, 4, pads=[1, 1, 1, 1])), 4, pads=[1, 1, 1, 1])
    x = b.relu(b.node("Add", y, x))
    shortcut = b.conv(x, 6, 1, strides=[2, 2])
    y = b.conv(x, 6, 3, strides=[2, 2], pads=[1, 1, 1, 1])
    return b.node("Add", shortcut, y)


@tiny
def concat(b: Builder) -> str:
    x = b.relu(b.conv("image", 4))
    branches = [
        b.conv(x, 2, 1),
        b.conv(b.conv(x, 2, (1, 5), pads=[0, 2, 0, 2]), 3, (5, 1), pads=[2, 0, 2, 0]),
        b.conv(b.node("AveragePool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]), 2, 1),
        b.node("MaxPool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
    ]
    return b.relu(b.conv(b.node("Concat", *branches, axis=1, channels=11), 4, strides=[2, 1]))


@tiny
def pooled_projection(b: Builder) -> str:
    """An average pool that counts its padding, read by a 1x1 convolution to fewer channels."""
    x = b.relu(b.conv("image", 5, pads=[1, 1, 1, 1]))
    y = b.node("AveragePool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1], count_include_pad=1)
    return b.conv(b.relu(b.conv(y, 3, 1)), 4, pads=[1, 1, 1, 1])


@tiny
def divided(b: Builder) -> str:
    """What divides by zero at zero, between convolutions that read only what changes."""
    weights = b.weight(4, CHANNELS, 3, 3, scale=0.2)
    x = b.node("Conv", "image", weights, b.weight(4, shift=20.0), channels=4, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return b.conv(b.node("Div", b.constant(20.0), x, channels=4), 4, pads=[1, 1, 1, 1])


@tiny
def root_of_shifted(b: Builder) -> str:
    """What is not a number at zero, between convolutions that read only what changes."""
    weights = b.weight(4, CHANNELS, 3, 3, scale=0.2)
    x = b.node("Conv", "image", weights, b.weight(4, scale=0.1, shift=20.0), channels=4, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return b.conv(b.node("Sqrt", b.node("Sub", x, b.constant(8.0))), 4, pads=[1, 1, 1, 1])


@tiny
def strided(b: Builder) -> str:
    x = b.conv("image", 4, 5, strides=[2, 3], pads=[2, 1, 2, 0])
    return b.conv(x, 4, 3, strides=[2, 1], pads=[1, 1, 1, 1])


@tiny
def kernel_below_stride(b: Builder) -> str:
    x = b.conv("image", 4, 2, strides=[3, 3])
    return b.conv(x, 5, 1, strides=[2, 2])


@tiny
def dilated(b: Builder) -> str:
    x = b.conv("image", 4, 3, dilations=[2, 3], pads=[2, 3, 2, 3])
    return b.node("MaxPool", x, kernel_shape=[3, 2], dilations=[2, 2], strides=[1, 2])


@tiny
def grouped(b: Builder) -> str:
    x = b.conv("image", 6, pads=[1, 1, 1, 1])
    return b.conv(b.relu(x), 9, 3, group=3, pads=[1, 1, 1, 1], strides=[2, 2])


@tiny
def depthwise(b: Builder) -> str:
    x = b.node("Clip", b.conv("image", 6, strides=[2, 2], pads=[1, 1, 1, 1]), b.constant(0.0), b.constant(6.0))
    x = b.node("Clip", b.conv(x, 6, group=6, pads=[1, 1, 1, 1]), b.constant(0.0), b.constant(6.0))
    return b.conv(x, 4, 1, bias=False)


@tiny
def ceil_mode(b: Builder) -> str:
    x = b.conv("image", 4)
    x = b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    return b.node("AveragePool", x, kernel_shape=[2, 2], strides=[3, 2], pads=[1, 0, 0, 1], ceil_mode=1)


@tiny
def average_pool_with_pads(b: Builder) -> str:
    x = b.conv("image", 4)
    x = b.node("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 1, 1], ceil_mode=1, count_include_pad=1)
    return b.node("AveragePool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])


@tiny
def max_pool_of_negatives(b: Builder) -> str:
    x = b.node("Sub", b.conv("image", 4), b.constant(20.0))
    return b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])


@tiny
def same_padding(b: Builder) -> str:
    x = b.conv("image", 4, 4, strides=[2, 2], auto_pad="SAME_UPPER")
    x = b.conv(x, 4, (2, 3), auto_pad="SAME_LOWER")
    return b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 1], auto_pad="VALID")


@tiny
def asymmetric_pads(b: Builder) -> str:
    return b.conv(b.conv("image", 4, 3, pads=[2, 0, 0, 1]), 4, 3, pads=[0, 2, 1, 0], strides=[2, 1])


@tiny
def pre_activation(b: Builder) -> str:
    x = b.conv("image", 4)
    y = b.conv(b.relu(b.batch_norm(x)), 4, pads=[1, 1, 1, 1])
    z = b.relu(b.batch_norm(b.node("Concat", x, y, axis=1, channels=8)))
    return b.conv(z, 4, 1)


@tiny
def bottleneck(b: Builder) -> str:
    x = b.relu(b.conv("image", 8, strides=[2, 2], pads=[1, 1, 1, 1]))
    for _ in range(2):
        y = b.relu(b.conv(b.relu(b.conv(x, 4, 1)), 4, pads=[1, 1, 1, 1]))
        x = b.relu(b.node("Add", b.conv(y, 8, 1), x))
    return b.conv(b.conv(x, 5, pads=[1, 1, 1, 1]), 3, 1)


@tiny
def densely_connected(b: Builder) -> str:
    x = b.conv("image", 4, strides=[2, 2], pads=[1, 1, 1, 1])
    for _ in range(2):
        y = b.relu(b.conv(b.relu(b.batch_norm(x)), 6, 1))
        y = b.conv(y, 3, pads=[1, 1, 1, 1])
        x = b.node("Concat", x, y, axis=1, channels=b.channels[x] + 3)
    return b.conv(b.relu(b.batch_norm(x)), 3, 1)


@tiny
def squeezed_and_expanded(b: Builder) -> str:
    x = b.relu(b.conv("image", 3, strides=[2, 2]))
    for channels in (3, 4):
        wide = [b.relu(b.conv(x, 8, 1)), b.relu(b.conv(x, 8, pads=[1, 1, 1, 1]))]
        x = b.relu(b.conv(b.node("Concat", *wide, axis=1, channels=16), channels, 1))
    return x


@tiny
def per_channel_arithmetic(b: Builder) -> str:
    x = b.node("Mul", "image", b.weight(CHANNELS, 1, 1))
    x = b.node("PRelu", b.conv(b.node("Add", b.weight(1, CHANNELS, 1, 1), x, channels=CHANNELS), 4), b.weight(4, 1, 1))
    y = b.node("Sub", b.constant(1.0), x, channels=4)
    return b.conv(b.node("Max", x, b.node("Sigmoid", y), b.weight(4, 1, 1)), 4)


@tiny
def converted_channels(b: Builder) -> str:
    """As torchvision's pretrained InceptionV3 converts its image: channel by channel, each taken without its axis."""
    channels = []
    for number, (scale, shift) in enumerate([(0.458, -0.03), (0.448, -0.088), (0.45, -0.188)]):
        x = b.node("Gather", "image", b.constant(number, np.int64), axis=1)
        x = b.node("Mul", b.node("Unsqueeze", x, b.constant([1], np.int64), channels=1), b.constant(scale))
        channels.append(b.node("Add", x, b.constant(shift)))
    x = b.node("Concat", *channels, axis=1, channels=CHANNELS)
    return b.conv(b.relu(b.conv(x, 4, pads=[1, 1, 1, 1], strides=[2, 1])), 4)


@tiny
def patch_into_wide_map(b: Builder) -> str:
    """A value read at once by a window, a merge and the dense tail."""
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    y = b.conv(x, 4, pads=[1, 1, 1, 1])
    merged = b.node("Add", x, y)
    gate = b.node("Sigmoid", b.node("GlobalAveragePool", x))
    return b.node("Mul", merged, gate)


@tiny
def global_average_head(b: Builder) -> str:
    x = b.relu(b.conv("image", 4, pads=[1, 1, 1, 1], strides=[2, 1]))
    return b.node("GlobalAveragePool", b.conv(x, 6, 3))


@tiny
def gated(b: Builder) -> str:
    """Squeeze and excite twice: of a map by channels first, and by a mean of cells where channels are last."""
    x = b.relu(b.conv("image", 4, pads=[1, 1, 1, 1]))
    squeezed = b.relu(b.conv(b.node("GlobalAveragePool", x), 2, 1))
    x = b.conv(b.node("Mul", x, b.node("HardSigmoid", b.conv(squeezed, 4, 1))), 4, strides=[2, 1])
    last = b.node("Transpose", x, perm=[0, 2, 3, 1], channels=4)
    mean = b.node("ReduceMean", last, b.constant([1, 2], np.int64))
    context = b.node("MatMul", mean, b.weight(4, 4))
    x = b.node("Transpose", b.node("Add", context, last), perm=[0, 3, 1, 2])
    return b.conv(b.relu(x), 4)


@tiny
def blended(b: Builder) -> str:
    """Two maps weighed by a gate and by what it leaves to one; the head reads the gate, too."""
    x = b.relu(b.conv("image", 4, pads=[1, 1, 1, 1]))
    y = b.conv(x, 4, pads=[1, 1, 1, 1])
    gate = b.node("Sigmoid", b.conv(b.node("GlobalAveragePool", x), 4, 1))
    rest = b.node("Sub", b.constant(1.0), gate, channels=4)
    merged = b.relu(b.node("Add", b.node("Mul", x, gate), b.node("Mul", rest, y, channels=4)))
    return b.node("Concat", b.node("GlobalAveragePool", b.conv(merged, 4)), gate, axis=1, channels=8)


@tiny
def unknown_in_the_middle(b: Builder) -> str:
    x = b.relu(b.conv("image", 4))
    x = b.node("CumSum", x, b.constant(2, np.int64))
    return b.conv(x, 4)


@tiny
def normalised_channels(b: Builder) -> str:
    x = b.node("LRN", b.relu(b.conv("image", 4)), size=3, alpha=0.1, beta=0.5, bias=1.0)
    x = b.node("Softmax", b.conv(x, 5), axis=1)
    x = b.node("LpNormalization", b.conv(x, 4, pads=[1, 1, 1, 1]), axis=1, p=2)
    return b.conv(x, 4, strides=[2, 2])


@tiny
def channels_last_block(b: Builder) -> str:
    """As ConvNeXt's: layer normalisation and products where channels are last, between a depthwise convolution and a sum."""
    x = b.conv("image", 6, pads=[1, 1, 1, 1], strides=[2, 1])
    y = b.node("Transpose", b.conv(x, 6, 5, group=6, pads=[2, 2, 2, 2]), perm=[0, 2, 3, 1], channels=6)
    y = b.node("LayerNormalization", y, b.weight(6, shift=1.0), b.weight(6), axis=-1, epsilon=1e-5)
    y = b.node("Add", b.node("MatMul", y, b.weight(6, 12, scale=0.4), channels=12), b.weight(12), channels=12)
    y = b.node("Mul", y, b.node("Sigmoid", y))
    y = b.node("Mul", b.node("MatMul", y, b.weight(12, 6, scale=0.3), channels=6), b.weight(6))
    return b.relu(b.conv(b.node("Add", x, b.node("Transpose", y, perm=[0, 3, 1, 2]), channels=6), 4))


@tiny
def layer_normalisation_by_hand(b: Builder) -> str:
    """Mean and deviation over the channels, as older exporters write it: maps of one channel go with all."""
    x, axes = b.conv("image", 6, pads=[1, 1, 1, 1]), b.constant([1], np.int64)
    centred = b.node("Sub", x, b.node("ReduceMean", x, axes, channels=1), channels=6)
    square = b.node("Pow", centred, b.constant(2.0))
    variance = b.node("ReduceMean", square, axes, channels=1)
    deviation = b.node("Sqrt", b.node("Add", variance, b.constant(0.1)))
    x = b.node("Add", b.node("Mul", b.node("Div", centred, deviation, channels=6), b.weight(6, 1, 1)), b.weight(1, 6, 1, 1))
    return b.conv(b.relu(x), 4, strides=[1, 2])


@tiny
def shuffled_channels(b: Builder) -> str:
    """As ShuffleNet's: split, one branch convolved, channels of both interleaved by reshapes whose sizes are computed."""
    x = b.relu(b.conv("image", 6, pads=[1, 1, 1, 1]))
    b.nodes.append(helper.make_node("Split", [x], ["left", "right"], axis=1, num_outputs=2))
    b.channels.update(left=3, right=3)
    right = b.conv(b.conv("right", 3, 3, group=3, pads=[1, 1, 1, 1]), 3, 1)
    x = b.node("Concat", "left", right, axis=1, channels=6)
    shape = b.node("Shape", x)
    batch, sides = (b.node("Slice", shape, *(b.constant([n], np.int64) for n in part)) for part in ((0, 1), (2, 4)))
    grouped = b.node("Concat", batch, b.constant([2, 3], np.int64), sides, axis=0)
    x = b.node("Transpose", b.node("Reshape", x, grouped), perm=[0, 2, 1, 3, 4])
    x = b.node("Reshape", x, b.node("Concat", batch, b.constant([6], np.int64), sides, axis=0), channels=6)
    x = b.node("Gather", b.conv(x, 6, 1), b.constant([4, 0, 0, 5, 1], np.int64), axis=1, channels=5)
    x = b.node("Slice", x, *(b.constant([n], np.int64) for n in (-1, -6, 1, -2)), channels=3)
    return b.conv(x, 4)


@tiny
def padded_and_cropped(b: Builder) -> str:
    x = b.node("Pad", "image", b.constant([0, 0, 2, 1, 0, 0, 1, 3], np.int64), mode="reflect", channels=3)
    x = b.node("Pad", b.conv(x, 4), b.constant([0, 0, 1, 0, 0, 0, 2, 1], np.int64), mode="edge")
    x = b.node("Pad", b.conv(x, 4), b.constant([0, 0, 0, 2, 0, 0, 1, 0], np.int64))
    ends = [b.constant([n, n], np.int64) for n in (2**31 - 1,)]
    focus = [
        b.node("Slice", x, b.constant(start, np.int64), *ends, b.constant([2, 3], np.int64), b.constant([2, 2], np.int64))
        for start in ([0, 0], [1, 1])
    ]
    x = b.node("Slice", b.conv("image", 4), *(b.constant(n, np.int64) for n in ([-1], [-100], [3], [-1])))
    crop = [b.node("Slice", one, *(b.constant(n, np.int64) for n in ([1, 0], [7, 8], [2, 3]))) for one in (*focus, x)]
    return b.conv(b.node("Concat", *crop, axis=1, channels=12), 4)


@tiny
def resized(b: Builder) -> str:
    x = b.conv("image", 4, strides=[2, 2])
    x = b.node("Resize", x, "", b.constant([1.0, 1.0, 2.0, 3.0]), mode="nearest", nearest_mode="floor",
               coordinate_transformation_mode="asymmetric")  # fmt: skip
    x = b.node("Resize", b.conv(x, 4), "", b.constant([1.0, 1.0, 2.0, 0.5]), mode="linear")
    x = b.node("Resize", b.conv(x, 3), "", "", b.constant([1, 3, 21, 10], np.int64), mode="cubic")
    return b.conv(x, 4, strides=[2, 2])


@tiny
def blocks(b: Builder) -> str:
    x = b.node("DepthToSpace", b.conv("image", 8), blocksize=2, channels=2)
    x = b.node("SpaceToDepth", b.conv(x, 3, pads=[1, 1, 1, 1]), blocksize=2, channels=12)
    x = b.node("DepthToSpace", b.conv(x, 18), blocksize=3, mode="CRD", channels=2)
    return b.conv(x, 3, 1, strides=[3, 3])


@tiny
def comparisons(b: Builder) -> str:
    """Steps are taken by values that have the same bits however they are computed."""
    x = b.node("MaxPool", "image", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    y = b.node("MaxPool", "image", kernel_shape=[5, 5], pads=[2, 2, 2, 2])
    larger = b.node("And", b.node("Less", x, y), b.node("Not", b.node("Less", y, b.weight(3, 1, 1))))
    mask = b.node("Cast", b.node("GreaterOrEqual", y, b.constant(0.1)), to=TensorProto.FLOAT)
    x, y = (b.conv(value, 3, pads=[1, 1, 1, 1]) for value in (x, y))
    x = b.node("Where", larger, x, b.constant(0.5), channels=3)
    x = b.node("Mean", b.node("Min", x, b.constant(0.9)), mask, b.node("Sum", x, y))
    return b.conv(x, 4, strides=[2, 1])


@tiny
def norm_pools(b: Builder) -> str:
    x = b.node("LpPool", b.conv("image", 4), kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
    x = b.node("LpPool", b.conv(x, 4, 1), kernel_shape=[2, 2], p=3)
    x = b.node("LpPool", b.conv(x, 4), kernel_shape=[2, 2], p=1, strides=[1, 2])
    return b.node("Mul", x, b.constant(0.1))  # the sums are large


@tiny
def activations(b: Builder) -> str:
    """Steps are taken by the image itself, which has the same bits however it is read."""
    x = b.node("Shrink", b.node("Round", b.node("Mul", "image", b.constant(2.5))), bias=0.1)
    x = b.conv(b.node("Clip", b.node("Ceil", x), b.constant(-3.0), b.constant(3.0)), 4)
    for op in (
        "Sin",
        "Celu",
        "Softplus",
        "Reciprocal",
        "Log",
        "Selu",
        "Tanh",
        "HardSigmoid",
        "Sqrt",
        "Exp",
        "Cos",
        "Mish",
        "Elu",
    ):
        x = b.node(op, x)
        if op in ("Cos", "Selu"):
            x = b.conv(x, 4)
    return b.conv(b.node("Erf", b.node("HardSwish", b.conv(x, 4))), 4)


@tiny
def mean_of_cells(b: Builder) -> str:
    x = b.node("Add", b.relu(b.conv("image", 4, 3, pads=[1, 1, 1, 1])), b.weight(4, 1, 1))
    y = b.node("Transpose", b.conv(x, 5), perm=[0, 2, 3, 1])
    mean = b.node("ReduceMean", y, b.constant([1, 2], np.int64), keepdims=0)
    total = b.node("ReduceSum", x, b.constant([-1, -2], np.int64), keepdims=0)
    return b.node("Concat", mean, b.node("Mul", total, b.constant(0.01)), axis=1)
