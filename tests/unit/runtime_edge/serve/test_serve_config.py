"""serve.toml: what is taken, and how mistakes are named."""

from __future__ import annotations

import pytest

from runtime_edge.serve.config import PlanConfig, ServeConfig, load_config, read_token
from runtime_edge.serve.errors import ConfigError

GOOD = """
[server]
http = "127.0.0.1:0"
unix = "/run/edgeplan.sock"
trace_events = 10
[plans.squeezenet]
path = "squeezenet.plan"
allow = ["board.*"]
queue_ms = 50
"""


def write(tmp_path, text):
    path = tmp_path / "serve.toml"
    path.write_text(text)
    return str(path)


def test_a_file_is_read(tmp_path):
    config = load_config(write(tmp_path, GOOD))
    (plan,) = config.plans
    assert plan.path == str(tmp_path / "squeezenet.plan")
    assert plan.allow == ("board.*",)
    assert plan.queue_ms == 50
    assert config.trace_events == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nhtpp = 'x'", "did you mean 'http'"),
        ("[server]\nmax_connections = 'x'", "must be of type int"),
        ("[server]\nmax_connections = 0", "allowed are 1 to"),
        ("[server]\nlog_json = 1", "must be of type bool"),
        ("[plan.x]\npath = 'x'", "unknown table 'plan'"),
        ("[plans.x]\n", "path is missing"),
        ("[plans.x]\npath = 'x'\ndevice = 'tpu'", "known are cpu, cuda"),
        ("[plans.x]\npath = 'x'\ndefault_priority = 9", "default_priority is 9"),
        ("[plans.'a/b']\npath = 'x'", "a name has"),
        ("[plans.x]\npath = 'x'\nversion = 'v1'", "must be digits"),
        ("[server]\nhttp = '0.0.0.0:80'", "there is no token"),
        ("[server]\nhttp = '::1:80'", "write IPv6 addresses as"),
        ("[server]\nhttp = 'localhost:99999'", "port up to 65535"),
        ("[server]\ntls_cert = 'x'", "belong together"),
        ("[server", "not TOML"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text))


def test_a_plan_named_twice_is_refused():
    with pytest.raises(ConfigError, match="named twice"):
        ServeConfig(plans=(PlanConfig("a", "x"), PlanConfig("a", "y")))


def test_a_token_must_be_long_and_private(tmp_path):
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    path.chmod(0o640)
    assert read_token(str(path)) == b"0123456789abcdef"
    path.write_text("short")
    with pytest.raises(ConfigError, match="at least 16"):
        read_token(str(path))
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="everyone"):
        read_token(str(path))
