"""Random ONNX models by family: every attribute that the reader supports is drawn by some seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

Build = Callable[["Maker"], str | Sequence[str]]
ZOO: dict[str, Build] = {}


def family(build: Build) -> Build:
    ZOO[build.__name__] = build
    return build


class Maker:
    """Collects nodes; the random generator decides about attributes."""

    def __init__(self, seed: int, opset: int = 17) -> None:
        self.random, self.opset = np.random.default_rng(seed), opset
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.count = 0

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def input(self, *shape: int | str) -> str:
        name = self.name("x")
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        name = self.name("c")
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def whole(self, *numbers: int) -> str:
        return self.constant(numbers, np.int64)

    def numbers(self, *shape: int) -> str:
        return self.constant(self.random.normal(size=shape))

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [self.name("v") for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=self.name(kind), **attributes))
        return names[0] if outputs == 1 else names

    def pick(self, *options: Any) -> Any:
        return options[self.random.integers(len(options))]

    def size(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))

    def sizes(self, count: int, low: int, high: int) -> list[int]:
        return [self.size(low, high) for _ in range(count)]

    def build(self, *outputs: str) -> ModelProto:
        ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "zoo", self.inputs, ports, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def zoo_model(name: str, seed: int) -> ModelProto:
    maker = Maker(seed)
    outputs = ZOO[name](maker)
    return maker.build(*([outputs] if isinstance(outputs, str) else outputs))


# -- affine


@family
def gemm(m: Maker) -> str:
    rows, inner, columns = m.size(1, 3), m.size(1, 5), m.size(1, 5)
    attributes = {
        "transA": m.size(0, 1),
        "transB": m.size(0, 1),
        "alpha": m.pick(1.0, 0.7, -2.0),
        "beta": m.pick(1.0, 0.3, 0.0),
    }
    x = m.input(*((inner, rows) if attributes["transA"] else (rows, inner)))
    w = m.numbers(*((columns, inner) if attributes["transB"] else (inner, columns)))
    bias = m.pick(None, (columns,), (1, columns), (rows, 1), (1,), (rows, columns), ())
    return m.node("Gemm", x, w, *([] if bias is None else [m.numbers(*bias)]), **attributes)


@family
def gemm_constant_left(m: Maker) -> str:
    rows, inner, columns = m.size(1, 3), m.size(1, 4), m.size(1, 3)
    flip_a, flip_b = m.size(0, 1), m.size(0, 1)
    w = m.numbers(*((inner, rows) if flip_a else (rows, inner)))
    x = m.input(*((columns, inner) if flip_b else (inner, columns)))
    addend = [m.pick(m.numbers, m.input)(*m.pick((rows, columns), (columns,)))] if m.size(0, 3) else []
    return m.node("Gemm", w, x, *addend, transA=flip_a, transB=flip_b, alpha=0.5, beta=1.5)


@family
def matmul(m: Maker) -> str:
    k, n = m.size(1, 4), m.size(1, 4)
    left = m.pick((k,), (2, k), (1, 3, k), (2, 1, 3, k))
    right = m.pick((k,), (k, n), (1, k, n), (3, k, n), (2, 3, k, n))
    if m.size(0, 1):
        return m.node("MatMul", m.input(*left), m.numbers(*right))
    return m.node("MatMul", m.numbers(*left), m.input(*right))


@family
def add_and_subtract_constants(m: Maker) -> str:
    x = m.input(1, 3, 4)
    for _ in range(3):
        c = m.numbers(*m.pick((), (4,), (3, 1), (1, 1, 1), (1, 3, 4), (2, 3, 4), (1, 1, 3, 4)))
        x = m.node(m.pick("Add", "Sub"), *m.pick((x, c), (c, x)))
    return x


@family
def multiply_and_divide_by_constants(m: Maker) -> str:
    x = m.input(1, 3, 4)
    for _ in range(2):
        c = m.constant(m.random.uniform(0.5, 2, size=m.pick((), (4,), (3, 1), (2, 3, 4))) * m.pick(1, -1))
        x = m.pick(m.node("Mul", x, c), m.node("Mul", c, x), m.node("Div", x, c))
    return m.node("Neg", x)


@family
def add_two_values(m: Maker) -> str:
    a = m.node("Relu", m.input(1, 3, 4))
    b = m.node("Neg", m.input(*m.pick((1, 3, 4), (4,), (3, 1), (2, 1, 3, 1))))
    return m.node(m.pick("Add", "Sub"), *m.pick((a, b), (b, a), (a, a), (b, b)))


@family
def sum_of_many(m: Maker) -> str:
    a, b = m.input(1, 3), m.input(2, 1)
    terms = m.pick((a,), (a, b), (a, b, a), (a, m.numbers(3), b), (m.numbers(3), m.numbers(2, 1), a))
    return m.node(m.pick("Sum", "Mean"), *terms)


@family
def batch_normalization(m: Maker) -> str:
    shape = m.pick((1, 3), (1, 3, 4), (1, 3, 4, 2), (2, 3, 2, 2, 2))
    variance = m.constant(m.random.uniform(0.1, 3, 3))
    return m.node(
        "BatchNormalization",
        m.input(*shape),
        m.numbers(3),
        m.numbers(3),
        m.numbers(3),
        variance,
        **m.pick({}, {"epsilon": 0.01}, {"momentum": 0.5}),
    )


def _window(m: Maker, axes: int, extents: list[int], kernel: list[int], *, dilation: int = 2) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    if m.size(0, 1):
        attributes["strides"] = m.sizes(axes, 1, 3)
    dilations = m.sizes(axes, 1, dilation)
    if any(n < (k - 1) * d + 1 for n, k, d in zip(extents, kernel, dilations, strict=True)):
        dilations = [1] * axes
    mode = m.pick("none", "pads", "even", "VALID", "SAME_UPPER", "SAME_LOWER")
    if mode.startswith("SAME"):
        dilations = [1] * axes
    if dilations != [1] * axes:
        attributes["dilations"] = dilations
    if mode == "pads":
        attributes["pads"] = [min(p, k - 1) for p, k in zip(m.sizes(2 * axes, 0, 2), 2 * kernel, strict=True)]
    elif mode == "even":
        attributes["pads"] = 2 * [min(p, k - 1) for p, k in zip(m.sizes(axes, 0, 2), kernel, strict=True)]
    elif mode != "none":
        attributes["auto_pad"] = mode
    return attributes


@family
def convolution(m: Maker) -> str:
    axes, groups = m.size(1, 3), m.size(1, 2)
    kernel, extents = m.sizes(axes, 1, 3), m.sizes(axes, 3, 7)
    inputs, outputs = groups * m.size(1, 2), groups * m.size(1, 2)
    x = m.input(m.size(1, 2), inputs, *extents)
    w = m.numbers(outputs, inputs // groups, *kernel)
    bias = [m.numbers(outputs)] if m.size(0, 1) else []
    shape = {"kernel_shape": kernel} if m.size(0, 1) else {}
    return m.node("Conv", x, w, *bias, group=groups, **shape, **_window(m, axes, extents, kernel))


@family
def transposed_convolution(m: Maker) -> str:
    axes, groups = m.size(1, 2), m.size(1, 2)
    kernel, extents, stride = m.sizes(axes, 2, 4), m.sizes(axes, 1, 4), m.sizes(axes, 1, 3)
    inputs, outputs = m.size(1, 2), m.size(1, 2)
    attributes: dict[str, Any] = {"strides": stride}
    mode = m.pick("none", "pads", "even", "SAME_UPPER", "SAME_LOWER", "VALID", "shape", "dilated")
    covered = [(n - 1) * s + k for n, s, k in zip(extents, stride, kernel, strict=True)]
    if mode == "pads":
        attributes["pads"] = m.sizes(2 * axes, 0, 1)
        attributes["output_padding"] = [m.size(0, s - 1) for s in stride]
    elif mode == "even":
        attributes["pads"] = 2 * m.sizes(axes, 0, 1)
        attributes["output_padding"] = [m.size(0, s - 1) for s in stride]
    elif mode == "dilated":
        attributes["dilations"] = m.sizes(axes, 1, 2)
    elif mode == "shape":
        attributes["output_shape"] = [m.size(max(1, n - 2), n) for n in covered]
        attributes["auto_pad"] = m.pick("NOTSET", "SAME_UPPER", "SAME_LOWER")
    elif mode != "none":
        attributes["auto_pad"] = mode
        if mode.startswith("SAME"):
            attributes["strides"] = [min(s, k) for s, k in zip(stride, kernel, strict=True)]
    bias = [m.numbers(groups * outputs)] if m.size(0, 1) else []
    x, w = m.input(1, groups * inputs, *extents), m.numbers(groups * inputs, outputs, *kernel)
    return m.node("ConvTranspose", x, w, *bias, group=groups, **attributes)


# -- pooling and means


@family
def average_pool(m: Maker) -> str:
    axes = m.size(1, 2)
    kernel, extents = m.sizes(axes, 1, 3), m.sizes(axes, 3, 7)
    x = m.input(1, 2, *extents)
    m.opset = 19
    return m.node(
        "AveragePool",
        x,
        kernel_shape=kernel,
        count_include_pad=m.size(0, 1),
        ceil_mode=m.size(0, 1),
        **_window(m, axes, extents, kernel),
    )


@family
def max_pool(m: Maker) -> str:
    axes = m.size(1, 3)
    kernel, extents = m.sizes(axes, 1, 3), m.sizes(axes, 3, 6)
    x = m.input(1, 2, *extents)
    return m.node("MaxPool", x, kernel_shape=kernel, ceil_mode=m.size(0, 1), **_window(m, axes, extents, kernel))


@family
def global_pools(m: Maker) -> str:
    return m.node(m.pick("GlobalAveragePool", "GlobalMaxPool"), m.input(1, 3, *m.sizes(m.size(1, 3), 1, 4)))


@family
def reductions(m: Maker) -> list[str]:
    x, m.opset = m.input(1, 3, 4, 2), m.pick(11, 18)
    return [_reduction(m, x, kind) for kind in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")]


def _reduction(m: Maker, x: str, kind: str) -> str:
    axes = m.pick([1], [-1], [2, 3], [1, 3], [0, 1, 2, 3], [-2, 1])
    keep = {} if m.size(0, 1) else {"keepdims": m.size(0, 1)}
    if m.size(0, 4) == 0:
        return m.node(kind, x, **keep)
    if m.opset == 18:
        return m.node(kind, x, m.whole(*axes), **keep, noop_with_empty_axes=m.size(0, 1))
    return m.node(kind, x, axes=axes, **keep)


# -- activations


@family
def scalars(m: Maker) -> str | list[str]:
    """Values without any axis: an input, before, at and behind activations, outputs."""
    total = m.node("ReduceSum", m.input(1, 3), keepdims=0) if m.pick(True, True, False) else m.input()
    bent = m.node("LeakyRelu", m.node("Mul", total, m.constant(m.random.normal())), alpha=0.1)
    moved = m.node("Add", bent, m.node("Abs", total))
    last = m.node("Relu", moved) if m.pick(True, False) else m.node("Mul", moved, m.constant(2.0))
    return [last, m.node("Relu", m.node("Unsqueeze", bent, m.whole(0)))] if m.pick(True, False) else last


@family
def activations(m: Maker) -> str:
    x = m.input(1, 3, 4)
    for kind in m.random.permutation(["Relu", "Abs", "Sigmoid", "Tanh", "HardSigmoid"]):
        attributes = {"alpha": 0.3, "beta": 0.4} if kind == "HardSigmoid" and m.size(0, 1) else {}
        x = m.node("Sub", m.node(str(kind), x, **attributes), m.numbers())
    return x


@family
def leaky_relu(m: Maker) -> str:
    slope = m.pick({}, {"alpha": 0.1}, {"alpha": 0.0}, {"alpha": -0.7}, {"alpha": 2.5})
    return m.node("LeakyRelu", m.input(1, 3, 4), **slope)


@family
def prelu(m: Maker) -> str:
    return m.node("PRelu", m.input(1, 3, 4), m.numbers(*m.pick((1,), (4,), (3, 1), (1, 1, 1), (3, 4), (1, 3, 4))))


@family
def clip(m: Maker) -> str:
    m.opset = m.pick(10, 13)
    low, high = m.pick(None, -0.5), m.pick(None, 0.75, float(np.finfo(np.float32).max))
    if m.opset == 10:
        bounds = {name: bound for name, bound in (("min", low), ("max", high)) if bound is not None}
        return m.node("Clip", m.input(1, 3), **bounds)
    return m.node("Clip", m.input(1, 3), *("" if bound is None else m.constant(bound) for bound in (low, high)))


@family
def extrema(m: Maker) -> str:
    a, b = m.input(1, 3), m.input(*m.pick((1, 3), (2, 1), (3,)))
    c = m.numbers(*m.pick((), (3,), (2, 3)))
    return m.node(m.pick("Max", "Min"), *m.pick((a,), (a, b), (a, b, c), (c, a), (a, b, m.node("Neg", a), c), (a, a)))


# -- structure


@family
def flatten(m: Maker) -> str:
    return m.node("Flatten", m.input(1, 3, 2, 4), **m.pick({}, {"axis": 0}, {"axis": 2}, {"axis": -1}, {"axis": 4}))


@family
def reshape(m: Maker) -> str:
    x = m.input(1, 6, 4)
    return m.node("Reshape", x, m.whole(*m.pick((1, -1), (0, 2, 3, 4), (24,), (-1, 0), (4, 6), (1, 1, 24))))


@family
def squeeze_and_unsqueeze(m: Maker) -> str:
    x, m.opset = m.input(1, 3, 1, 2), m.pick(11, 13)
    new, old = m.pick([0], [-1], [1, 3]), m.pick([2], [0, 2], [-2], None)
    if m.opset == 11:
        y = m.node("Squeeze", x, **({} if old is None else {"axes": old}))
        return m.node("Unsqueeze", m.node("Relu", y), axes=new)
    y = m.node("Squeeze", x, *([] if old is None else [m.whole(*old)]))
    return m.node("Unsqueeze", m.node("Relu", y), m.whole(*new))


@family
def transpose(m: Maker) -> str:
    order = {"perm": [int(i) for i in m.random.permutation(4)]} if m.size(0, 3) else {}
    return m.node("Transpose", m.input(1, 2, 3, 4), **order)


@family
def concat(m: Maker) -> str:
    axis = m.pick(1, -1, 2)
    a, b = m.input(1, 2, 3), m.input(1, *((4, 3) if axis == 1 else (2, 5)))
    return m.node("Concat", *m.pick((a, b), (a, m.numbers(1, 2, 3), b), (a, a), (b, a)), axis=axis)


@family
def split(m: Maker) -> list[str]:
    x, m.opset = m.node("Relu", m.input(1, 7, 6)), m.pick(11, 13, 18)
    if m.opset == 11:
        return list(m.node("Split", x, outputs=3, axis=-1, **m.pick({}, {"split": [1, 2, 3]})))
    if m.opset == 13:
        return list(m.node("Split", x, m.whole(3, 4), outputs=2, axis=1))
    return list(m.node("Split", x, outputs=3, axis=1, num_outputs=3))


@family
def slices(m: Maker) -> str:
    x, m.opset = m.input(1, 6, 5), m.pick(9, 13)
    if m.opset == 9:
        cut = m.pick({"starts": [1], "ends": [9], "axes": [1]}, {"starts": [0, -3], "ends": [1, -1]})
        return m.node("Slice", x, **cut)
    starts, ends, axes, steps = m.pick(
        ([1, 0], [5, 3], [1, 2], [1, 1]),
        ([-1], [-100], [1], [-2]),
        ([4], [0], [-1], [-1]),
        ([1], [2**62], [1], [3]),
        ([5, -2], [1, -5], [1, 2], [-1, -1]),
    )
    return m.node("Slice", x, *(m.whole(*numbers) for numbers in (starts, ends, axes, steps)))


@family
def gather(m: Maker) -> str:
    axis = m.pick(0, 1, 2, -1)
    extent = (2, 4, 3)[axis]
    index = m.random.integers(-extent, extent, m.pick((), (3,), (2, 2)))
    return m.node("Gather", m.input(2, 4, 3), m.constant(index, m.pick(np.int64, np.int32)), axis=axis)


@family
def gather_elements(m: Maker) -> str:
    return m.node("GatherElements", m.input(2, 4, 3), m.constant(m.random.integers(-4, 4, (2, 3, 2)), np.int64), axis=1)


@family
def expand_and_tile(m: Maker) -> str:
    x = m.input(1, 3, 1)
    if m.size(0, 1):
        return m.node("Expand", x, m.whole(*m.pick((3, 1), (1, 1, 4), (2, 1, 3, 2), (1,))))
    return m.node("Tile", x, m.whole(*m.sizes(3, 1, 3)))


@family
def pad(m: Maker) -> str:
    x, mode, m.opset = m.input(1, 3, 4), m.pick("constant", "reflect", "edge"), m.pick(10, 13, 18)
    pads = [0, m.size(0, 2), m.size(0, 2), 0, m.size(0, 2), m.size(0, 2)]
    if mode == "constant" and m.size(0, 1):
        pads[m.pick(1, 2, 4, 5)] = -1
    if m.opset == 10:
        filled = {"value": 0.7} if mode == "constant" and m.size(0, 1) else {}
        return m.node("Pad", x, mode=mode, pads=pads, **filled)
    value = [m.constant(m.pick(0.0, -1.5))] if mode == "constant" and m.size(0, 1) else []
    if m.opset == 18 and value:
        return m.node("Pad", x, m.whole(1, 2), *value, m.whole(-1), mode=mode)
    return m.node("Pad", x, m.whole(*pads), *value, mode=mode)


@family
def depth_and_space(m: Maker) -> str:
    if m.size(0, 1):
        return m.node("SpaceToDepth", m.input(1, 2, 4, 6), blocksize=2)
    return m.node("DepthToSpace", m.input(1, 8, 2, 3), blocksize=2, mode=m.pick("DCR", "CRD"))


@family
def upsample(m: Maker) -> str:
    m.opset = m.pick(7, 9)
    scales = [1.0, 1.0, m.pick(2.0, 3.0, 1.5), m.pick(1.0, 2.0)]
    x = m.input(1, 2, 2, 4)
    if m.opset == 7:
        return m.node("Upsample", x, mode="nearest", scales=scales)
    return m.node("Upsample", x, m.constant(scales), mode="nearest")


@family
def resize(m: Maker) -> str:
    m.opset = m.pick(10, 11, 13, 18)
    x = m.input(1, 2, 4, 6)
    if m.opset == 10:
        return m.node("Resize", x, m.constant([1, 1, 2, m.pick(1, 3)]), mode="nearest")
    attributes = {
        "mode": "nearest",
        "nearest_mode": m.pick("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
        "coordinate_transformation_mode": m.pick("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"),
    }
    roi = m.constant([]) if m.opset < 13 else ""
    if m.size(0, 1):
        return m.node("Resize", x, roi, m.constant([1, 1, m.pick(2, 0.5, 1.5, 1), m.pick(2, 3, 0.5)]), **attributes)
    if m.opset == 18 and m.size(0, 1):
        return m.node("Resize", x, "", "", m.whole(8, 12), axes=[2, 3], **attributes)
    none = m.constant([]) if m.opset < 13 else ""
    return m.node("Resize", x, roi, none, m.whole(1, 2, m.pick(4, 8, 2), m.pick(12, 3)), **attributes)


@family
def identities(m: Maker) -> str:
    x = m.node("Identity", m.node("Dropout", m.input(1, 3)))
    return m.node("Cast", m.node("Cast", x, to=TensorProto.DOUBLE), to=TensorProto.FLOAT)


@family
def computed_shapes(m: Maker) -> str:
    """What exporters write to flatten, to repeat and to add a constant of a computed shape."""
    x = m.input("batch", 3, 4)
    batch = m.node("Unsqueeze", m.node("Gather", m.node("Shape", x), m.constant(0, np.int64), axis=0), m.whole(0))
    y = m.node("Reshape", x, m.node("Concat", batch, m.whole(-1), axis=0))
    ones = m.node("ConstantOfShape", m.node("Shape", y), value=numpy_helper.from_array(np.asarray([0.5], np.float32)))
    scale = m.node("Sqrt", m.node("Div", m.node("Mul", m.constant(3.0), m.constant(0.7)), m.constant(1.3)))
    indices = m.node("Range", m.constant(0, np.int64), m.constant(12, np.int64), m.constant(5, np.int64))
    picked = m.node("Gather", m.node("Mul", m.node("Add", y, ones), scale), indices, axis=1)
    stored = m.pick(
        {"value": numpy_helper.from_array(np.asarray([0.3], np.float32))},
        {"value_float": 0.3},
        {"value_floats": [0.3, 0.4, 0.5]},
    )
    size = m.node("Cast", m.node("Size", picked), to=TensorProto.FLOAT)
    return m.node("Add", m.node("Mul", picked, m.node("Constant", **stored)), size)


# -- what the simplifier sees


def _normalized(m: Maker, x: str, channels: int) -> str:
    return m.node(
        "BatchNormalization",
        x,
        m.numbers(channels),
        m.numbers(channels),
        m.numbers(channels),
        m.constant(m.random.uniform(0.1, 2, channels)),
    )


@family
def normalized_convolutions(m: Maker) -> str:
    """Convolutions with BatchNormalization on either side of the activation, padded or not, grouped or not."""
    x, channels = m.input(1, 2, 6, 6), 2
    for _ in range(2):
        groups, padding = m.pick(1, 2), m.pick(0, 1)
        if m.size(0, 1):
            x = _normalized(m, x, channels)
        if m.size(0, 2):
            w, b = m.numbers(4, channels // groups, 3, 3), m.numbers(4)
            x = m.node("Conv", x, w, b, group=groups, pads=[padding] * 4)
        else:
            x = m.node("ConvTranspose", x, m.numbers(channels, 4 // groups, 2, 2), group=groups)
        channels = 4
        if m.size(0, 1):
            x = _normalized(m, x, channels)
        x = m.node("LeakyRelu", x, alpha=m.pick(0.1, 1.5, -0.5))
        if m.size(0, 1):
            x = _normalized(m, x, channels)
    return m.node("MatMul", m.node("Flatten", x), m.numbers(_entries(m, x), 3))


def _entries(m: Maker, name: str) -> int:
    from onnx.shape_inference import infer_shapes

    inferred = infer_shapes(m.build(name)).graph.output[0]
    return int(np.prod([d.dim_value for d in inferred.type.tensor_type.shape.dim]))


@family
def affine_chains(m: Maker) -> str:
    x = m.node("Div", m.node("Sub", m.input("N", 4), m.numbers(4)), m.constant([0.3, 0.5, 0.7, 1.1]))
    for _ in range(3):
        x = m.node("Add", m.node("MatMul", x, m.numbers(4, 4)), m.numbers(4))
        if m.size(0, 1):
            x = m.node("Mul", x, m.numbers(4))
        if m.size(0, 1):
            x = m.node("PRelu", x, m.numbers(4))
        if m.size(0, 1):
            x = _normalized(m, x, 4)
    return m.node("Identity", x)


@family
def residual_blocks(m: Maker) -> list[str]:
    x = m.input(1, 2, 4, 4)
    for _ in range(2):
        y = m.node("Relu", _normalized(m, x, 2))
        y = m.node("Conv", y, m.numbers(2, 2, 3, 3), pads=[1, 1, 1, 1])
        x = m.node("Add", m.node("LeakyRelu", _normalized(m, y, 2)), x)
    return [m.node("Flatten", m.node("Transpose", m.node("Transpose", x, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2])), x]
