"""include and exclude rules."""

import pytest
from google.protobuf import text_format

from builder_host.importers.caffe import schema
from builder_host.importers.caffe.net_state import NetState, net_state


def layer(text):
    return text_format.Parse(text, schema.message_class("LayerParameter")())


@pytest.mark.parametrize(
    ("rules", "state", "is_in"),
    [
        ("", NetState(), True),
        ("include { phase: TRAIN }", NetState(), False),
        ("include { phase: TEST }", NetState(), True),
        ("include { phase: TEST }", NetState("TRAIN"), False),
        ("exclude { phase: TEST }", NetState(), False),
        ("include { phase: TRAIN } include { phase: TEST }", NetState(), True),
        ("include { stage: 'a' stage: 'b' }", NetState(stages=frozenset("a")), False),
        ("include { stage: 'a' stage: 'b' }", NetState(stages=frozenset("ab")), True),
        ("include { not_stage: 'a' }", NetState(stages=frozenset("a")), False),
        ("exclude { stage: 'a' } exclude { phase: TRAIN }", NetState(), True),
        ("include { min_level: 2 }", NetState(level=1), False),
        ("include { min_level: 1 max_level: 2 }", NetState(level=2), True),
        ("include { max_level: 2 }", NetState(level=3), False),
        ("include { }", NetState(), True),
        ("exclude { }", NetState(), False),
    ],
)
def test_rules(rules, state, is_in):
    assert state.includes(layer(rules)) is is_in


def test_both_kinds_of_rules_are_refused():
    with pytest.raises(ValueError, match="both include and exclude"):
        NetState().includes(layer("include { } exclude { }"))


def test_state_of_the_file_adds_stages_and_gives_the_level():
    net = schema.message_class("NetParameter")()
    net.state.level = 3
    net.state.stage.append("deploy")
    assert net_state(net, "TEST", ["x"], 0) == NetState("TEST", 3, frozenset({"deploy", "x"}))
    assert net_state(net, "TEST", [], 1).level == 1


def test_unknown_phase():
    with pytest.raises(ValueError, match="phase is 'DEPLOY', must be one of TRAIN, TEST"):
        net_state(schema.message_class("NetParameter")(), "DEPLOY", [], 0)
