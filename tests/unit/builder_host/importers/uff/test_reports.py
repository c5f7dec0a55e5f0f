"""Registered inputs, outputs, and what is said about files that cannot be imported."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import case, model_paths
from support.uff_models import HWCK, NHWC, UffFile

from builder_host.errors import ImportModelError
from builder_host.importers.uff.model import import_uff
from builder_host.importers.uff.orders import INCREMENT, expanded
from builder_host.importers.uff.problem import NodeProblem
from builder_host.importers.uff.reader import parse_uff
from builder_host.network.evaluate import evaluate_network


def problems_of(path, **options):
    with pytest.raises(ImportModelError) as caught:
        import_uff(path, **options)
    return caught.value.problems


def conv_file(shape=()):
    file = UffFile()
    file.input("image", shape)
    file.constant("kernel", np.ones((3, 3, 2, 4), np.float32))
    file.node("conv", "Conv", "image", "kernel", inputs_orders=[NHWC, HWCK], strides=[1, 1])
    file.output("conv")
    return file


def test_five_unsupported_nodes_make_one_report(tmp_path):
    file = UffFile()
    file.input("x", (1, 8))
    before = "x"
    for number in range(5):
        before = file.node(f"odd{number}", f"_Odd{number}", before, level=number)
    file.node("end", "Activation", before, func="relu")
    file.output("end")
    problems = problems_of(file.save(tmp_path))
    assert [p.partition(":")[0] for p in problems] == [
        f"UFF node 'odd{n}' (_Odd{n})" for n in range(5)
    ]
    assert all("docs/plugins.md" in p for p in problems)


def test_a_near_operation_is_named(tmp_path):
    file = UffFile()
    file.input("x", (1, 8))
    file.node("y", "_LeakyReLU", "x")
    file.output("y")
    (problem,) = problems_of(file.save(tmp_path))
    assert "nearest: LeakyRelu" in problem


def test_what_no_output_needs_is_left_out(tmp_path):
    file = conv_file((1, 5, 5, 2))
    file.node("odd", "_Odd", "conv")
    assert len(import_uff(file.save(tmp_path)).layers) == 1
    assert problems_of(file.save(tmp_path), outputs=["odd"])


def test_orders_of_inputs_and_outputs(tmp_path):
    path = conv_file().save(tmp_path)
    first = import_uff(path, shapes={"image": (1, 2, 6, 5)})
    last = import_uff(path, shapes={"image": (1, 6, 5, 2)}, order="NHWC")
    assert first.outputs[0].shape == (1, 4, 4, 3)
    assert last.outputs[0].shape == (1, 4, 3, 4)
    x = np.random.default_rng(0).standard_normal((1, 2, 6, 5))
    one = evaluate_network(first, {"image": x})["conv"]
    other = evaluate_network(last, {"image": x.transpose(0, 2, 3, 1)})["conv"]
    np.testing.assert_allclose(one.transpose(0, 2, 3, 1), other)


def test_a_stated_shape_is_turned_into_the_callers_order(tmp_path):
    path = conv_file((-1, 6, 5, 2)).save(tmp_path)
    assert import_uff(path).inputs[0].shape == (1, 2, 6, 5)
    assert import_uff(path, order="NHWC").inputs[0].shape == (1, 6, 5, 2)
    (problem,) = problems_of(path, shapes={"image": (1, 6, 5, 2)})
    assert "contradicts" in problem


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "--uff-input image,C,H,W"),
        ({"shapes": {"imag": (1, 2, 6, 5)}}, "nearest: image"),
        ({"shapes": {"image": (1, 2, 6, 0)}}, "at least 1"),
        ({"shapes": {"image": (1, 3, 6, 5)}}, "convolution"),
        ({"shapes": {"image": (1, 2, 6, 5)}, "outputs": ["con"]}, "nearest: conv"),
        ({"shapes": {"image": (1, 2, 6, 5)}, "outputs": []}, "marks no output"),
    ],
)
def test_wrong_registrations(tmp_path, options, words):
    problems = problems_of(conv_file().save(tmp_path), **options)
    assert any(words in problem for problem in problems), problems


def test_order_must_be_known(tmp_path):
    with pytest.raises(ValueError, match="CHWN"):
        import_uff(conv_file().save(tmp_path), order="CHWN")


def _without_reference(file):
    del file.message.referenced_data["weights_kernel"]


def _short_blob(file):
    file.message.referenced_data["weights_kernel"].blob = b"\0" * 5


def _ring(file):
    file.message.referenced_data["weights_kernel"].ref = "weights_kernel"


def _two_ids(file):
    file.constant("image", np.zeros(1, np.float32))


def _huge_constant(file):
    node = next(n for n in file.graph.nodes if n.id == "kernel")
    node.fields["shape"].i_list.val[:] = [1 << 40, 1 << 40]


def _bad_dtype(file):
    next(n for n in file.graph.nodes if n.id == "kernel").fields["dtype"].dtype = 7


def _cycle(file):
    next(n for n in file.graph.nodes if n.id == "conv").inputs[0] = "conv"


def _dangling(file):
    next(n for n in file.graph.nodes if n.id == "conv").inputs[0] = "nowhere"


def _unknown_field(file):
    next(n for n in file.graph.nodes if n.id == "conv").fields["fused"].s = "relu"


def _wrong_kind(file):
    next(n for n in file.graph.nodes if n.id == "conv").fields["strides"].s = "two"


def _wrong_orders(file):
    next(n for n in file.graph.nodes if n.id == "conv").fields["inputs_orders"].s = "NHWC"


def _version(file):
    file.message.version = 9


def _descriptor(file):
    file.message.descriptors.add(id="mine", version=1)


def _two_graphs(file):
    file.message.graphs.add(id="second")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_without_reference, "'weights_kernel', which the file lacks"),
        (_short_blob, "needs 288 bytes, the file holds 5"),
        (_ring, "never end"),
        (_two_ids, "another node has this id"),
        (_huge_constant, "bytes"),
        (_bad_dtype, "0x7"),
        (_cycle, "depends on itself"),
        (_dangling, "'nowhere' is no node"),
        (_unknown_field, "fused = 'relu'"),
        (_wrong_kind, "'strides' is 'two'"),
        (_wrong_orders, "'inputs_orders' is 'NHWC'"),
        (_version, "version is 9"),
        (_descriptor, "'mine'"),
        (_two_graphs, "2 graphs"),
    ],
)
def test_damaged_files(tmp_path, damage, words):
    file = conv_file((1, 6, 5, 2))
    damage(file)
    problems = problems_of(file.save(tmp_path))
    assert any(words in problem for problem in problems), problems


def test_constants_that_grow_without_end_are_refused(tmp_path):
    file = UffFile()
    file.input("x", (1, 8))
    before = file.constant("c0", np.zeros(1024, np.float32))
    for number in range(1, 40):
        before = file.node(f"c{number}", "Concat", before, before, axis=0)
    file.node("y", "Binary", "x", before, func="add")
    file.output("y")
    problems = problems_of(file.save(tmp_path))
    assert any("the limit is 33,554,432" in problem for problem in problems), problems


def test_other_files_are_told_apart(tmp_path):
    path = tmp_path / "m.uff"
    path.write_bytes(b"")
    assert "0 graphs" in problems_of(path)[0]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" * 9)
    assert "no UFF file" in problems_of(path)[0]
    assert "cannot be read" in problems_of(tmp_path / "absent.uff")[0]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_cut_and_flipped_files_are_reported(data):
    (path,) = model_paths(case("uff/ppo/random8"))
    content = bytearray(path.read_bytes())
    del content[data.draw(st.integers(0, 4000)) :]
    for _ in range(3):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(
                st.integers(0, 7)
            )
    with pytest.raises(ImportModelError):
        parse_uff(bytes(content))


@pytest.mark.parametrize(
    ("order", "rank", "expected"),
    [
        ([0, 2, INCREMENT, 1], 4, (0, 2, 3, 1)),
        ([0, 2, INCREMENT, 1], 5, (0, 2, 3, 4, 1)),
        ([0, 2, INCREMENT, 1], 3, (0, 2, 1)),
        ([0, 2, INCREMENT, 1], 2, (0, 1)),
        ([2, INCREMENT, 1, 0], 4, (2, 3, 1, 0)),
        ([0, 1], 2, (0, 1)),
    ],
)
def test_orders_of_a_rank(order, rank, expected):
    assert expanded(order, rank) == expected


@pytest.mark.parametrize(("order", "rank"), [([0, 1], 4), ([0, 0], 2), ([INCREMENT, 0], 3)])
def test_orders_that_do_not_fit(order, rank):
    with pytest.raises(NodeProblem):
        expanded(order, rank)
