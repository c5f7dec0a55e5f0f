"""The published description: every path of it answers, and schemathesis finds no server error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import resources

import pytest
from support.serve_plans import save, scale_plan, two_input_plan
from support.serving import serving

DOCUMENT = json.loads(
    resources.files("runtime_edge.serve").joinpath("openapi.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openapi")
    save(scale_plan((1, 2)), folder / "scale.plan")
    save(two_input_plan(), folder / "two.plan")
    plans = {"scale": folder / "scale.plan", "two": folder / "two.plan"}
    with serving(folder, plans=plans) as served:
        yield served
        assert served.process.poll() is None
        assert "Traceback" not in served.log()


def test_every_described_path_exists_and_other_methods_are_405(served):
    assert served.get("/openapi.json") == DOCUMENT
    for path, methods in DOCUMENT["paths"].items():
        real = path.replace("{model}", "scale").replace("{version}", "1").replace("{region}", "r")
        reply = served.request("DELETE", real)
        assert reply.status == 405, (real, reply)
        allowed = set(re.findall(r"GET|POST", reply.json()["error"]))
        assert allowed == {method.upper() for method in methods}, real


def test_answers_are_those_described(served):
    for path, methods in DOCUMENT["paths"].items():
        if "get" not in methods or "region}" in path:
            continue
        real = path.replace("{model}", "scale").replace("{version}", "1")
        reply = served.request("GET", real)
        assert reply.status == 200, (real, reply)
        (kind,) = methods["get"]["responses"]["200"]["content"]
        assert reply.headers["content-type"].startswith(kind)


@pytest.mark.slow
def test_schemathesis_finds_no_server_error(served, tmp_path):
    pytest.importorskip("schemathesis")
    (tmp_path / "openapi.json").write_text(json.dumps(DOCUMENT))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", "openapi.json"),
            *("--url", f"http://{served.url}", "--max-examples", "60", "--seed", "1"),
            *("--checks", "not_a_server_error,status_code_conformance,content_type_conformance"),
            *("--request-timeout", "20", "--phases", "examples,coverage,fuzzing"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert served.request("GET", "/v2/health/live").status == 200
