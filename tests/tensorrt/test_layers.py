"""Layers of the network API against numpy: the emitted network evaluated, and plans that ran."""

from __future__ import annotations

import numpy as np
import pytest
from support.tensorrt_networks import (
    RNG,
    close,
    compiled,
    constant,
    evaluated,
    floats,
    inputs_of,
    network_of,
)

from builder_host import tensorrt as trt
from builder_host.errors import NetworkError
from builder_host.network.evaluate import evaluate_network


@pytest.fixture
def net(monkeypatch):
    return network_of(monkeypatch)[1]


# --- shapes known while building -----------------------------------------------------------------


def test_shape_arithmetic_becomes_a_reshape(net):
    x = floats(2, 3, 4)
    [data] = inputs_of(net, x=x)
    shape = net.add_shape(data).get_output(0)
    first = net.add_gather(shape, constant(net, np.asarray([0], np.int32)), 0).get_output(0)
    rest = constant(net, np.asarray([-1], np.int32))
    wanted = net.add_concatenation([first, rest])
    wanted.axis = 0
    shuffle = net.add_shuffle(data)
    shuffle.set_input(1, wanted.get_output(0))
    assert shape.is_shape_tensor
    assert shape.dtype is trt.int64
    close(evaluated(net, shuffle.get_output(0), x=x), x.reshape(2, 12))
    assert [layer.kind for layer in net.emit(None)[0].layers] == ["reshape"]


def test_a_shape_that_depends_on_data_is_refused(net):
    x = floats(2, 3)
    [data, shape] = inputs_of(net, x=x, shape=np.asarray([3, 2], np.int32))
    shuffle = net.add_shuffle(data)
    shuffle.set_input(1, shape)
    with pytest.raises(NetworkError, match=r"shape \(input 1, 'shape'\) depends on the network"):
        net.emit(None)


def test_a_shape_without_dimensions_makes_a_scalar(net):
    x = floats(1, 1)
    [data] = inputs_of(net, x=x)
    shuffle = net.add_shuffle(data)
    empty = net.add_slice(net.add_shape(data).get_output(0), (0,), (0,), (1,))
    shuffle.set_input(1, empty.get_output(0))
    close(evaluated(net, shuffle.get_output(0), x=x), x.reshape(()))


def test_squeeze_and_unsqueeze(net):
    x = floats(2, 1, 3)
    [data] = inputs_of(net, x=x)
    narrow = net.add_squeeze(data, constant(net, np.asarray([1], np.int64))).get_output(0)
    wide = net.add_unsqueeze(narrow, constant(net, np.asarray([0, -1], np.int64))).get_output(0)
    close(evaluated(net, wide, x=x), x.reshape(1, 2, 3, 1))
    net.add_squeeze(data, constant(net, np.asarray([2], np.int64)))
    with pytest.raises(NetworkError, match="dimension 2 of"):
        net.emit(None)


def test_layers_may_read_what_was_added_after_them(net):
    x = floats(3)
    [data] = inputs_of(net, x=x)
    first = net.add_unary(data, trt.UnaryOperation.NEG)
    second = net.add_unary(data, trt.UnaryOperation.ABS)
    assert tuple(first.get_output(0).shape) == (3,)
    first.set_input(0, second.get_output(0))
    close(evaluated(net, first.get_output(0), x=x), -np.abs(x))
    second.set_input(0, first.get_output(0))
    with pytest.raises(NetworkError, match="depends on its own output"):
        net.emit(None)


def test_shapes_follow_attributes_that_change(net):
    [data] = inputs_of(net, x=floats(1, 1, 8, 8))
    pool = net.add_pooling(data, trt.PoolingType.MAX, (2, 2))
    assert tuple(pool.get_output(0).shape) == (1, 1, 7, 7)
    pool.stride = (2, 2)
    assert tuple(pool.get_output(0).shape) == (1, 1, 4, 4)
    data.shape = (1, 1, 6, 6)
    assert tuple(pool.get_output(0).shape) == (1, 1, 3, 3)


# --- movement ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "numpy_mode"),
    [
        (trt.SampleMode.FILL, "constant"),
        (trt.SampleMode.CLAMP, "edge"),
        (trt.SampleMode.WRAP, "wrap"),
        (trt.SampleMode.REFLECT, "reflect"),
    ],
)
def test_slices_that_leave_the_tensor(net, mode, numpy_mode):
    x = floats(3, 5)
    [data] = inputs_of(net, x=x)
    layer = net.add_slice(data, (0, -3), (2, 6), (1, 2))
    layer.mode = mode
    padded = np.pad(x, ((0, 0), (3, 3)), mode=numpy_mode)
    close(evaluated(net, layer.get_output(0), x=x), padded[:2, 0:12:2])


def test_slice_by_tensors_with_a_fill_value(net):
    x = floats(4)
    [data] = inputs_of(net, x=x)
    layer = net.add_slice(data, (0,), (1,), (1,))
    for index, values in enumerate(([2], [4], [1]), 1):
        layer.set_input(index, constant(net, np.asarray(values, np.int32)))
    layer.mode = trt.SampleMode.FILL
    layer.set_input(4, constant(net, np.asarray(7, np.float32)))
    close(evaluated(net, layer.get_output(0), x=x), [x[2], x[3], 7, 7])


def test_resizes(net):
    x = floats(1, 2, 3, 4)
    [data] = inputs_of(net, x=x)
    nearest = net.add_resize(data)
    nearest.scales = (1, 1, 2, 2)
    linear = net.add_resize(data)
    linear.shape = (1, 2, 5, 7)
    linear.interpolation_mode = trt.InterpolationMode.LINEAR
    linear.coordinate_transformation = trt.ResizeCoordinateTransformation.ALIGN_CORNERS
    assert linear.align_corners
    low, high = evaluated(net, nearest.get_output(0), linear.get_output(0), x=x)
    close(low, x.repeat(2, 2).repeat(2, 3))
    rows, columns = np.linspace(0, 2, 5), np.linspace(0, 3, 7)
    along = np.stack(
        [[np.interp(columns, np.arange(4), row) for row in image] for image in x[0]]
    )  # [2, 3, 7]
    wanted = np.stack(
        [np.stack([np.interp(rows, np.arange(3), c) for c in image.T], 1) for image in along]
    )
    close(high[0], wanted)


def test_fills_and_casts(net):
    line = net.add_fill((2, 3), trt.FillOperation.LINSPACE)
    line.alpha, line.beta = 1.0, 0.5
    plane = net.add_fill(None, trt.FillOperation.LINSPACE, trt.int32)
    plane.set_input(0, constant(net, np.asarray([2, 3], np.int64)))
    plane.set_input(1, constant(net, np.asarray(4, np.int32)))
    plane.set_input(2, constant(net, np.asarray([10, 1], np.int32)))
    cast = net.add_cast(line.get_output(0), trt.int32)
    a, b, c = evaluated(net, line.get_output(0), plane.get_output(0), cast.get_output(0))
    close(a, [[1, 1.5, 2], [2.5, 3, 3.5]])
    assert b.tolist() == [[4, 5, 6], [14, 15, 16]]
    assert c.tolist() == [[1, 1, 2], [2, 3, 3]]
    net.add_fill((2,), trt.FillOperation.RANDOM_UNIFORM)
    with pytest.raises(NetworkError, match="make random numbers an input"):
        net.emit(None)


def test_identity_converts_to_the_output_type_that_was_set(net):
    x = np.asarray([1, 0, -3], np.int32)
    [data] = inputs_of(net, x=x)
    layer = net.add_identity(data)
    layer.set_output_type(0, trt.float32)
    assert layer.output_type_is_set(0)
    assert layer.get_output(0).dtype is trt.float32
    close(evaluated(net, layer.get_output(0), x=x), x)


@pytest.mark.parametrize("wrong", ["float32", np.float32, 0])
def test_what_is_no_element_type_is_named(net, wrong):
    with pytest.raises(TypeError, match=r"input 'x': dtype is .*expected a DataType such as trt"):
        net.add_input("x", wrong, (1, 3))
    assert net.num_inputs == 0
    [x] = inputs_of(net, x=floats(1, 3))
    relu = net.add_activation(x, trt.ActivationType.RELU)
    with pytest.raises(TypeError, match="type of output 0 is "):
        relu.set_output_type(0, wrong)
    with pytest.raises(TypeError, match=r"IActivationLayer\.precision is "):
        relu.precision = wrong
    with pytest.raises(TypeError, match=r"ICastLayer\.to_type is "):
        net.add_cast(x, wrong)
    with pytest.raises(TypeError, match="'x': dtype is "):
        x.dtype = wrong


# --- compute -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("groups", "parts"), [(1, 4), (2, 2), (2, 4)])
def test_normalization(net, groups, parts):
    """Instances (one group), and groups with coefficients per group or per channel."""
    x, scale, bias = floats(2, 4, 3, 5), floats(1, parts, 1, 1), floats(1, parts, 1, 1)
    [data] = inputs_of(net, x=x)
    layer = net.add_normalization(data, constant(net, scale), constant(net, bias), 0b1100)
    layer.num_groups, layer.epsilon = groups, 1e-3
    grouped = x.astype(np.float64).reshape(2, 4 if groups == 1 else groups, -1)
    mean = grouped.mean(2, keepdims=True)
    y = (grouped - mean) / np.sqrt(grouped.var(2, keepdims=True) + 1e-3)
    per_channel = [np.repeat(a, 4 // parts, 1) for a in (scale, bias)]
    close(
        evaluated(net, layer.get_output(0), x=x),
        y.reshape(x.shape) * per_channel[0] + per_channel[1],
    )


def test_layer_normalization(net):
    x, scale, bias = floats(2, 3, 8), floats(1, 1, 8), floats(1, 1, 8)
    [data] = inputs_of(net, x=x)
    layer = net.add_normalization(data, constant(net, scale), constant(net, bias), 0b100)
    wide = x.astype(np.float64)
    y = (wide - wide.mean(2, keepdims=True)) / np.sqrt(wide.var(2, keepdims=True) + 1e-5)
    close(evaluated(net, layer.get_output(0), x=x), y * scale + bias)


def test_einsum_and_products_with_vectors(net):
    a, b, v = floats(2, 3, 4), floats(2, 4, 5), floats(4)
    x, y, z = inputs_of(net, a=a, b=b, v=v)
    product = net.add_einsum([x, y], "bij,bjk->bki").get_output(0)
    ops = trt.MatrixOperation
    column = net.add_matrix_multiply(x, ops.NONE, z, ops.VECTOR).get_output(0)
    row = net.add_matrix_multiply(z, ops.VECTOR, y, ops.NONE).get_output(0)
    dot = net.add_matrix_multiply(z, ops.VECTOR, z, ops.VECTOR).get_output(0)
    got = evaluated(net, product, column, row, dot, a=a, b=b, v=v)
    for result, wanted in zip(got, (np.einsum("bij,bjk->bki", a, b), a @ v, v @ b, v @ v),
                              strict=True):  # fmt: skip
        close(result, wanted, atol=1e-5)


def test_quantize_and_dequantize(net):
    x = np.asarray([[-3.0, -0.26, 0.25, 9.0], [0.75, 0.1, 100.0, -100.0]], np.float32)
    [data] = inputs_of(net, x=x)
    q = net.add_quantize(data, constant(net, np.asarray(0.5, np.float32)))
    back = net.add_dequantize(q.get_output(0), constant(net, np.asarray(0.5, np.float32)))
    rows = net.add_quantize(data, constant(net, np.asarray([0.5, 1.0], np.float32)))
    rows.axis = 0
    one, two, three = evaluated(net, q.get_output(0), back.get_output(0), rows.get_output(0), x=x)
    wanted = np.rint(x / 0.5).clip(-128, 127)
    assert one.tolist() == wanted.tolist()
    close(two, wanted * 0.5)
    assert three.tolist() == np.rint(x / [[0.5], [1.0]]).clip(-128, 127).tolist()
    q.set_input(2, constant(net, np.asarray(3, np.int8)))
    with pytest.raises(NetworkError, match="the zero point must be 0"):
        net.emit(None)


def test_cumulative_ragged_softmax_and_blend(net):
    x = floats(3, 4)
    bounds = np.asarray([[2], [4], [0]], np.int32)
    image = floats(1, 1, 4, 4)
    data, limits, pixels = inputs_of(net, x=x, bounds=bounds, image=image)
    axis = constant(net, np.asarray(1, np.int32))
    running = net.add_cumulative(data, axis, trt.CumulativeOperation.SUM, True, False)
    ragged = net.add_ragged_softmax(data, limits)
    pool = net.add_pooling(pixels, trt.PoolingType.MAX_AVERAGE_BLEND, (2, 2))
    pool.stride, pool.blend_factor = (2, 2), 0.25
    sums, rows, blend = evaluated(
        net, running.get_output(0), ragged.get_output(0), pool.get_output(0),
        x=x, bounds=bounds, image=image,
    )  # fmt: skip
    close(sums, np.pad(x, ((0, 0), (1, 0)))[:, :4].cumsum(1))
    wanted = np.zeros((3, 4))
    for row, (count,) in enumerate(bounds):
        powers = np.exp(x[row, :count].astype(np.float64))
        wanted[row, :count] = powers / powers.sum() if count else 0
    close(rows, wanted)
    windows = image.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(2, 2, 4)
    close(blend[0, 0], 0.75 * windows.max(2) + 0.25 * windows.mean(2))


def without_dimensions(net):
    none = trt.MatrixOperation.NONE
    scalar, matrix = constant(net, np.float32(1)), constant(net, floats(2, 2))
    return net.add_matrix_multiply(scalar, trt.MatrixOperation.VECTOR, matrix, none)


@pytest.mark.parametrize(
    ("add", "text"),
    [
        (lambda net: net.add_concatenation([]), "at least one tensor"),
        (without_dimensions, "input 0 is a scalar"),
        (
            lambda net: net.add_normalization(
                *(constant(net, floats(*shape)) for shape in ((1, 2, 2), (2,), (2,))), 0b100
            ),
            "must have as many dimensions as the input",
        ),
    ],
)
def test_ranks_that_do_not_fit_are_refused(net, add, text):
    add(net)
    with pytest.raises(NetworkError, match=text):
        net.emit(None)


# --- positions -----------------------------------------------------------------------------------


def test_top_k_gives_int32_indices(net):
    x = floats(2, 7)
    [data] = inputs_of(net, x=x)
    layer = net.add_topk(data, trt.TopKOperation.MAX, 3, 0b10)
    assert layer.get_output(1).dtype is trt.int32
    values, indices = evaluated(net, layer.get_output(0), layer.get_output(1), x=x)
    order = np.argsort(-x, 1)[:, :3]
    assert indices.tolist() == order.tolist()
    close(values, np.take_along_axis(x, order, 1))


def test_gathers(net):
    x, places = floats(2, 3, 4), np.asarray([[2, 0], [1, 1]], np.int32)
    elements = RNG.integers(0, 3, (2, 3, 4)).astype(np.int32)
    tuples = np.asarray([[0, 2], [1, 0]], np.int32)
    data, rows, cells, pairs = inputs_of(net, x=x, p=places, e=elements, t=tuples)
    plain = net.add_gather(data, rows, 1).get_output(0)
    element = net.add_gather_v2(data, cells, trt.GatherMode.ELEMENT)
    element.axis = 1
    nd = net.add_gather_v2(data, pairs, trt.GatherMode.ND).get_output(0)
    batched = net.add_gather(data, rows, 2)
    batched.num_elementwise_dims = 1
    got = evaluated(
        net, plain, element.get_output(0), nd, batched.get_output(0),
        x=x, p=places, e=elements, t=tuples,
    )  # fmt: skip
    close(got[0], np.take(x, places, 1))
    close(got[1], np.take_along_axis(x, elements.astype(np.int64), 1))
    close(got[2], x[[0, 1], [2, 0]])
    close(got[3], np.stack([x[i][:, places[i]] for i in range(2)]))


def test_scatters(net):
    x, updates = floats(3, 4), floats(2, 4)
    rows = np.asarray([[2, 0, 1, 2], [0, 1, 0, 0]], np.int32)
    tuples = np.asarray([[2], [0]], np.int32)
    data, cells, pairs, new = inputs_of(net, x=x, r=rows, t=tuples, u=updates)
    element = net.add_scatter(data, cells, new, trt.ScatterMode.ELEMENT).get_output(0)
    nd = net.add_scatter(data, pairs, new, trt.ScatterMode.ND).get_output(0)
    got = evaluated(net, element, nd, x=x, r=rows, t=tuples, u=updates)
    wanted = x.copy()
    np.put_along_axis(wanted, rows.astype(np.int64), updates, 0)
    close(got[0], wanted)
    wanted = x.copy()
    wanted[[2, 0]] = updates
    close(got[1], wanted)


def test_one_hot_and_non_zero(net):
    index, x = np.asarray([2, 0, 5], np.int32), np.asarray([[0, 3, 0], [1, 0, 2]], np.float32)
    places, data = inputs_of(net, i=index, x=x)
    values = constant(net, np.asarray([-1, 1], np.float32))
    hot = net.add_one_hot(places, values, constant(net, np.asarray(4, np.int32)), 0)
    found = net.add_non_zero(data)
    rows, where = evaluated(net, hot.get_output(0), found.get_output(0), i=index, x=x)
    close(rows, np.where(np.arange(4)[:, None] == index, 1, -1))
    assert where[:, :3].tolist() == [list(part) for part in np.nonzero(x)]
    assert (where[:, 3:] == -1).all()


def test_boxes_are_selected(net):
    boxes = np.asarray([[[0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6], [0, 0, 9, 9]]], np.float32)
    scores = np.asarray([[[0.9, 0.0], [0.8, 0.0], [0.7, 0.6], [0.1, 0.3]]], np.float32)
    data, points = inputs_of(net, boxes=boxes, scores=scores)
    layer = net.add_nms(data, points, constant(net, np.asarray(3, np.int32)))
    layer.set_input(3, constant(net, np.asarray(0.5, np.float32)))
    layer.set_input(4, constant(net, np.asarray(0.2, np.float32)))
    rows, count = evaluated(
        net, layer.get_output(0), layer.get_output(1), boxes=boxes, scores=scores
    )
    assert count == 4
    assert rows[:4].tolist() == [[0, 0, 0], [0, 0, 2], [0, 1, 2], [0, 1, 3]]
    assert (rows[4:] == -1).all()
    layer.topk_box_limit = 8
    net.emit(None)
    layer.topk_box_limit = 7  # of 4 boxes in 2 classes
    with pytest.raises(NetworkError, match="all 8 boxes of all classes are considered"):
        net.emit(None)


def overlap(a, b):
    common = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)


@pytest.mark.parametrize("is_centred", [False, True])
def test_boxes_of_their_own_for_each_class(net, is_centred):
    rng = np.random.default_rng(4)
    low = rng.uniform(0, 3, (2, 9, 3, 2)).astype(np.float32)
    corners = np.concatenate([low, low + rng.uniform(1, 2, low.shape).astype(np.float32)], -1)
    sizes = corners[..., 2:] - corners[..., :2]
    boxes = np.concatenate([low + sizes / 2, sizes], -1) if is_centred else corners
    scores = rng.uniform(0, 1, (2, 9, 3)).astype(np.float32)
    wanted = []
    for item, number in np.ndindex(2, 3):
        kept = []
        for index in np.argsort(-scores[item, :, number]):
            own = corners[item, :, number].astype(np.float64)
            is_free = all(overlap(own[index], own[k]) <= 0.3 for k in kept)
            if len(kept) < 3 and scores[item, index, number] > 0.6 and is_free:
                kept.append(index)
        wanted += [[item, number, int(index)] for index in kept]
    assert 6 < len(wanted) < 18
    data, points = inputs_of(net, boxes=boxes.astype(np.float32), scores=scores)
    layer = net.add_nms(data, points, constant(net, np.asarray(3, np.int32)))
    layer.set_input(3, constant(net, np.asarray(0.3, np.float32)))
    layer.set_input(4, constant(net, np.asarray(0.6, np.float32)))
    if is_centred:
        layer.bounding_box_format = trt.BoundingBoxFormat.CENTER_SIZES
    rows, count = evaluated(
        net,
        layer.get_output(0),
        layer.get_output(1),
        boxes=boxes.astype(np.float32),
        scores=scores,
    )
    assert count == len(wanted)
    assert rows[: len(wanted)].tolist() == wanted
    assert rows.shape == (18, 3)
    built = compiled(
        trt.Builder(trt.Logger(trt.Logger.ERROR)),
        net,
        boxes=boxes.astype(np.float32),
        scores=scores,
    )
    assert np.array_equal(built["result0"], rows)
    assert built["result1"] == count
    assert (rows[len(wanted) :] == -1).all()


def test_boxes_that_fit_no_class_are_refused(net):
    data, points = inputs_of(net, boxes=floats(1, 9, 2, 4), scores=floats(1, 9, 3))
    layer = net.add_nms(data, points, constant(net, np.asarray(3, np.int32)))
    with pytest.raises(NetworkError, match=r"expected \[B, N, 4\] or \[B, N, C, 4\], and"):
        layer.get_output(0).shape  # noqa: B018 - it raises


def test_grid_sample_and_reverse_sequence(net):
    x, lengths = floats(1, 2, 3, 4), np.asarray([2, 3], np.int32)
    rows, columns = np.meshgrid(np.linspace(-1, 1, 3), np.linspace(-1, 1, 4), indexing="ij")
    grid = np.stack([columns, rows], -1)[None].astype(np.float32)
    steps = floats(3, 2, 5)
    data, points, series, counts = inputs_of(net, x=x, g=grid, s=steps, n=lengths)
    sample = net.add_grid_sample(data, points)
    sample.align_corners = True
    backwards = net.add_reverse_sequence(series, counts)
    same, turned = evaluated(
        net, sample.get_output(0), backwards.get_output(0), x=x, g=grid, s=steps, n=lengths
    )
    close(same, x, atol=1e-5)
    close(turned[:, 0], steps[[1, 0, 2], 0])
    close(turned[:, 1], steps[[2, 1, 0], 1])


# --- implicit batch ------------------------------------------------------------------------------


def test_constants_in_an_implicit_batch(monkeypatch):
    _, net = network_of(monkeypatch, batch=3)
    x = floats(3, 2, 4)
    data = net.add_input("x", trt.float32, (2, 4))
    line = constant(net, np.ones((1, 4), np.float32))
    joined = net.add_concatenation([data, line])
    joined.axis = 0
    picked = net.add_gather(data, constant(net, np.asarray([3, 0], np.int32)), 1).get_output(0)
    assert tuple(picked.shape) == (2, 2)
    a, b = evaluated(net, joined.get_output(0), picked, batch=3, x=x)
    close(a, np.concatenate([x, np.ones((3, 1, 4))], 1))
    close(b, x[:, :, [3, 0]])


# --- assertions, plugins, names that are not here ------------------------------------------------


def test_assertions_are_checked_while_building(net):
    [data] = inputs_of(net, x=floats(2, 3))
    shape = net.add_shape(data).get_output(0)
    three = constant(net, np.asarray([2, 3], np.int64))
    equal = net.add_elementwise(shape, three, trt.ElementWiseOperation.EQUAL).get_output(0)
    net.add_assertion(equal, "rows of three")
    net.emit(None)
    data.shape = (2, 4)
    with pytest.raises(NetworkError, match="assertion failed: rows of three"):
        net.emit(None)


def test_a_plan_of_the_newer_layers_runs(monkeypatch):
    """One build for many kinds: their kernels, not their references, give these results."""
    builder, net = network_of(monkeypatch)
    x = floats(1, 4, 6, 6)
    [data] = inputs_of(net, x=x)
    coefficients = [constant(net, floats(1, 2, 1, 1)) for _ in range(2)]
    norm = net.add_normalization(data, *coefficients, 0b1100)
    norm.num_groups = 2
    resize = net.add_resize(norm.get_output(0))
    resize.scales = (1, 1, 2, 2)
    flat = net.add_shuffle(resize.get_output(0))
    flat.reshape_dims = (4, 144)
    product = net.add_einsum([flat.get_output(0)] * 2, "ij,kj->ik")
    top = net.add_topk(product.get_output(0), trt.TopKOperation.MIN, 2, 0b10)
    outputs = [resize.get_output(0), product.get_output(0), *top.outputs]
    for number, tensor in enumerate(outputs):
        tensor.name = f"y{number}"
        net.mark_output(tensor)
    wanted = list(evaluate_network(net.emit(None)[0], {"x": x}).values())
    results = compiled(builder, net, x=x)
    for number, value in enumerate(wanted):
        # 144 products of magnitude 1 are summed: 144 roundings of 2^-24 of a sum up to 150.
        np.testing.assert_allclose(results[f"y{number}"], value, atol=2e-3, rtol=1e-4)
