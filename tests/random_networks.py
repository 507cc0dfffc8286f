"""Random small networks over the whole operator set, as a hypothesis strategy: what fails is shrunk to few nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx
from hypothesis import strategies as st
from networks import CHANNELS, Builder
from onnx import TensorProto, helper

MOST_STEPS = 14
MOST_CHANNELS = 6
LARGEST_SIDE = 40


@dataclass(frozen=True)
class Map:
    """A value of the network under construction.

    ``stepwise`` values have the same bits however they are computed, so that a step function of them has, too.
    """

    name: str
    channels: int
    height: int
    width: int
    last: bool = False
    stepwise: bool = False

    @property
    def axes(self) -> tuple[int, int]:
        return (1, 2) if self.last else (2, 3)

    @property
    def channel_axis(self) -> int:
        return 3 if self.last else 1

    @property
    def shape(self) -> list[int]:
        return [self.height, self.width, self.channels] if self.last else [self.channels, self.height, self.width]

    def of_channels(self, *shape: int) -> tuple[int, ...]:
        """``shape`` of a number a channel in this layout."""
        return (self.channels,) if self.last else (self.channels, 1, 1)


Draw = Callable[[st.SearchStrategy], object]
Step = Callable[[Draw, Builder, Map, list[Map]], Map | None]
STEPS: list[Step] = []


def step(one: Step) -> Step:
    STEPS.append(one)
    return one


def often(one: Step) -> Step:
    STEPS.extend([one] * 3)
    return one


SAFE = {
    "Exp": ("Tanh",), "Log": ("Softplus", 0.1), "Sqrt": ("Abs", 0.1), "Reciprocal": ("Abs", 0.5), "Acosh": ("Abs", 1.1),
    "Atanh": ("HardSigmoid", -0.5), "Asin": ("HardSigmoid", -0.5), "Acos": ("HardSigmoid", -0.5), "Sinh": ("Tanh",),
    "Cosh": ("Tanh",), "Tan": ("Tanh",),
}  # fmt: skip
SMOOTH = ("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Softsign",
          "Mish", "Erf", "Abs", "Neg", "Identity", "Sin", "Cos", "Atan", "Asinh", *SAFE)  # fmt: skip
STEPPED = ("Round", "Floor", "Ceil", "Sign", "Shrink", "ThresholdedRelu")


@step
def activation(draw, b, x, maps):
    op = draw(st.sampled_from(SMOOTH))
    value = x.name
    for before in SAFE.get(op, ()):
        value = b.node(before, value) if isinstance(before, str) else b.node("Add", value, b.constant(before))
    return replace(x, name=b.node(op, value), stepwise=False)


@step
def stepped(draw, b, x, maps):
    if not x.stepwise:
        return None
    op = draw(st.sampled_from((*STEPPED, "Where", "Cast")))
    if op == "Where":
        larger = b.node(draw(st.sampled_from(("Greater", "LessOrEqual"))), x.name, b.constant(0.2))
        return replace(x, name=b.node("Where", b.node("Not", larger), x.name, b.weight(*x.of_channels())))
    if op == "Cast":
        return replace(x, name=b.node("Cast", b.node("Less", x.name, b.weight(*x.of_channels())), to=TensorProto.FLOAT))
    return replace(x, name=b.node(op, x.name))


@step
def clip(draw, b, x, maps):
    return replace(x, name=b.node("Clip", x.name, b.constant(-1.5), b.constant(draw(st.sampled_from((0.5, 6.0))))))


@often
def convolution(draw, b, x, maps):
    if x.last:
        return None
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    dilation = [draw(st.integers(1, 2)) for _ in range(2)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    pads = [draw(st.integers(0, r // 2)) for r in (*reach, *reach)]
    strides = [draw(st.integers(1, 2)) for _ in range(2)]
    sizes = [
        (size + before + after - r) // s + 1
        for size, before, after, r, s in zip((x.height, x.width), pads[:2], pads[2:], reach, strides, strict=True)
    ]
    if min(sizes) < 1 or max(r - p for r, p in zip((*reach, *reach), pads, strict=True)) > min(x.height, x.width):
        return None
    groups = [g for g in range(1, x.channels + 1) if x.channels % g == 0]
    group = draw(st.sampled_from(groups))
    channels = group * draw(st.integers(1, max(1, MOST_CHANNELS // group)))
    b.channels[x.name] = x.channels
    name = b.conv(x.name, channels, tuple(kernel), group, draw(st.booleans()), pads=pads, strides=strides, dilations=dilation)
    return Map(name, channels, *sizes)


@step
def pooling(draw, b, x, maps):
    kernel = [draw(st.integers(1, 3)) for _ in range(2)]
    if x.last or x.height < kernel[0] or x.width < kernel[1]:
        return None
    op = draw(st.sampled_from(("MaxPool", "AveragePool", "LpPool")))
    pads = [draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]
    strides = [draw(st.integers(1, 2)) for _ in range(2)]
    attributes = {"count_include_pad": draw(st.integers(0, 1))} if op == "AveragePool" else {}
    if op == "LpPool":
        attributes = {"p": draw(st.integers(1, 3))}
    sizes = [
        (size + before + after - k) // s + 1
        for size, before, after, k, s in zip((x.height, x.width), pads[:2], pads[2:], kernel, strides, strict=True)
    ]
    name = b.node(op, x.name, kernel_shape=kernel, pads=pads, strides=strides, **attributes)
    return Map(name, x.channels, *sizes, stepwise=x.stepwise and op == "MaxPool")


@step
def batch_normalisation(draw, b, x, maps):
    if x.last:
        return None
    b.channels[x.name] = x.channels
    return replace(x, name=b.batch_norm(x.name), stepwise=False)


@step
def arithmetic(draw, b, x, maps):
    """With a scalar, a number a channel, or a whole map, from the left or the right."""
    op = draw(st.sampled_from(("Add", "Sub", "Mul", "Max", "Min", "PRelu", "Pow", "Div", "Sum")))
    shape = draw(st.sampled_from(((), x.of_channels(), (1, *x.shape))))
    if op == "Pow":
        return replace(
            x, name=b.node("Pow", b.node("Add", b.node("Abs", x.name), b.constant(0.1)), b.constant(1.5)), stepwise=False
        )
    other = b.constant(1.5 + np.abs(b.rng.standard_normal(shape))) if op == "Div" else b.weight(*shape)
    operands = [x.name, other] if op in ("PRelu", "Div") or draw(st.booleans()) else [other, x.name]
    return replace(x, name=b.node(op, *operands), stepwise=False)


def _partner(draw, x, maps, *, channels):
    alike = [
        m for m in maps
        if (m.height, m.width, m.last) == (x.height, x.width, x.last) and (channels is None or m.channels in channels)
    ]  # fmt: skip
    return draw(st.sampled_from(alike)) if alike else None


@often
def merge(draw, b, x, maps):
    y = _partner(draw, x, maps, channels=(x.channels, 1))
    op = draw(st.sampled_from(("Add", "Sub", "Mul", "Max", "Min", "Mean", "Sum", "Div")))
    if y is None:
        return None
    other = b.node("Add", b.node("Abs", y.name), b.constant(0.5)) if op == "Div" else y.name
    return replace(x, name=b.node(op, x.name, other), stepwise=False)


@step
def concatenation(draw, b, x, maps):
    y = _partner(draw, x, maps, channels=None)
    if y is None or x.channels + y.channels > 2 * MOST_CHANNELS:
        return None
    name = b.node("Concat", x.name, y.name, axis=x.channel_axis)
    return replace(x, name=name, channels=x.channels + y.channels, stepwise=x.stepwise and y.stepwise)


@step
def transposition(draw, b, x, maps):
    return replace(x, name=b.node("Transpose", x.name, perm=[0, 3, 1, 2] if x.last else [0, 2, 3, 1]), last=not x.last)


@often
def across_channels(draw, b, x, maps):
    op = draw(st.sampled_from(("Softmax", "LogSoftmax", "LpNormalization", "LayerNormalization", "LRN", "MatMul", "ReduceMean",
                               "ReduceMax", "ReduceL2", "ReduceSum")))  # fmt: skip
    axis = draw(st.sampled_from((x.channel_axis, x.channel_axis - 4)))
    if op == "LRN":
        return None if x.last else replace(x, name=b.node(op, x.name, size=3, alpha=0.2, beta=0.6, bias=1.0), stepwise=False)
    if op in ("LayerNormalization", "MatMul") and not x.last:
        return None
    if op == "LayerNormalization":
        name = b.node(op, x.name, b.weight(x.channels), b.weight(x.channels), axis=axis, epsilon=0.1)
        return replace(x, name=name, stepwise=False)
    if op == "MatMul":
        channels = draw(st.integers(1, MOST_CHANNELS))
        weights = b.weight(x.channels, channels, scale=x.channels**-0.5)
        return replace(x, name=b.node(op, x.name, weights), channels=channels, stepwise=False)
    if op.startswith("Reduce"):
        return replace(x, name=b.node(op, x.name, b.constant([axis], np.int64)), channels=1, stepwise=False)
    if op == "LpNormalization":
        positive = b.node("Add", b.node("Abs", x.name), b.constant(0.2))
        return replace(x, name=b.node(op, positive, axis=axis, p=draw(st.integers(1, 2))), stepwise=False)
    return replace(x, name=b.node(op, x.name, axis=axis), stepwise=False)


@step
def selection(draw, b, x, maps):
    if draw(st.booleans()):
        taken = draw(st.lists(st.integers(-x.channels, x.channels - 1), min_size=1, max_size=MOST_CHANNELS))
        return replace(x, name=b.node("Gather", x.name, b.constant(taken, np.int64), axis=x.channel_axis), channels=len(taken))
    if x.channels < 2:
        return None
    first = draw(st.integers(1, x.channels - 1))
    names = [f"split_{len(b.nodes)}_{n}" for n in range(2)]
    sizes = b.constant([first, x.channels - first], np.int64)
    b.nodes.append(helper.make_node("Split", [x.name, sizes], names, axis=x.channel_axis))
    maps.append(replace(x, name=names[0], channels=first))
    return replace(x, name=names[1], channels=x.channels - first)


@step
def shuffle(draw, b, x, maps):
    if x.last or x.channels % 2:
        return None
    grouped = b.node("Reshape", x.name, b.constant([-1, 2, x.channels // 2, x.height, x.width], np.int64))
    moved = b.node("Transpose", grouped, perm=[0, 2, 1, 3, 4])
    return replace(x, name=b.node("Reshape", moved, b.constant([-1, *x.shape], np.int64)))


@step
def padding(draw, b, x, maps):
    mode = draw(st.sampled_from(("constant", "reflect", "edge")))
    pads = [draw(st.integers(0, 2)) for _ in range(4)]
    if mode == "reflect" and min(x.height, x.width) <= 2:
        return None
    height, width = x.height + pads[0] + pads[2], x.width + pads[1] + pads[3]
    if max(height, width) > LARGEST_SIDE:
        return None
    every = [0] * 8
    for axis, before, after in zip(x.axes, pads[:2], pads[2:], strict=True):
        every[axis], every[axis + 4] = before, after
    name = b.node("Pad", x.name, b.constant(every, np.int64), mode=mode)
    return replace(x, name=name, height=height, width=width)


@step
def crop(draw, b, x, maps):
    steps = [draw(st.sampled_from((1, 2, -1))) for _ in range(2)]
    sizes, starts, ends = [], [], []
    for size, stride in zip((x.height, x.width), steps, strict=True):
        begin = draw(st.integers(0, size // 3))
        cells = np.arange(size)[begin:][:: abs(stride)]
        sizes.append(len(cells))
        starts.append(begin if stride > 0 else size - 1)
        ends.append(size if stride > 0 else begin - size - 1)
    name = b.node("Slice", x.name, *(b.constant(one, np.int64) for one in (starts, ends, x.axes, steps)))
    return replace(x, name=name, height=sizes[0], width=sizes[1])


@step
def resizing(draw, b, x, maps):
    mode = draw(st.sampled_from(("nearest", "linear")))
    scales = [draw(st.sampled_from((1.0, 2.0, 0.5))) for _ in range(2)]
    height, width = (int(np.floor(size * scale)) for size, scale in zip((x.height, x.width), scales, strict=True))
    if x.last or min(height, width) < 1 or max(height, width) > LARGEST_SIDE:
        return None
    kind = draw(st.sampled_from(("asymmetric", "half_pixel", "align_corners")))
    attributes = {"nearest_mode": "floor"} if mode == "nearest" else {}
    name = b.node(
        "Resize", x.name, "", b.constant([1.0, 1.0, *scales]), mode=mode, coordinate_transformation_mode=kind, **attributes
    )
    return replace(x, name=name, height=height, width=width, stepwise=x.stepwise and mode == "nearest")


@step
def blocks(draw, b, x, maps):
    if not x.last and x.channels % 4 == 0 and max(x.height, x.width) * 2 <= LARGEST_SIDE:
        mode = draw(st.sampled_from(("DCR", "CRD")))
        name = b.node("DepthToSpace", x.name, blocksize=2, mode=mode)
        return replace(x, name=name, channels=x.channels // 4, height=2 * x.height, width=2 * x.width, stepwise=False)
    if not x.last and x.height % 2 == x.width % 2 == 0 and x.channels * 4 <= 2 * MOST_CHANNELS:
        name = b.node("SpaceToDepth", x.name, blocksize=2)
        return replace(x, name=name, channels=x.channels * 4, height=x.height // 2, width=x.width // 2)
    return None


@step
def gate(draw, b, x, maps):
    """Squeeze and excite: everything behind it is dense."""
    if x.last:
        return None
    return replace(x, name=b.node("Mul", x.name, b.node("Sigmoid", b.node("GlobalAveragePool", x.name))), stepwise=False)


@st.composite
def networks(draw) -> onnx.ModelProto:
    """A valid model of an image [1, 3, H, W] to some numbers; every step reads one or two of the values before it."""
    height, width = draw(st.integers(7, 18)), draw(st.integers(7, 18))
    b = Builder(draw(st.integers(0, 2**16)))
    maps = [Map("image", CHANNELS, height, width, stepwise=True)]
    count = draw(st.sampled_from(range(1, MOST_STEPS + 1)))
    for _ in range(count):
        older = draw(st.integers(0, 7)) == 0
        source = draw(st.sampled_from(maps)) if older else maps[-1]
        found = draw(st.sampled_from(STEPS))(draw, b, source, maps) or activation(draw, b, source, maps)
        maps.append(found)
    output = maps[-1].name
    if output == "image":
        output = b.relu("image")
    head = draw(st.sampled_from(("flatten", "mean")))
    if head == "mean":
        output = b.node("ReduceMean", output, b.constant(list(maps[-1].axes), np.int64), keepdims=draw(st.integers(0, 1)))
    return b.model(output, height, width)
