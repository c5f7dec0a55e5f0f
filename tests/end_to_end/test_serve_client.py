"""`edgeplan client` and the examples against a daemon."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from support.serve_plans import row_input, save, scale_plan, two_input_plan
from support.serving import ROOT, serving, wait_until

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
EXAMPLES = ROOT / "examples" / "serving"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("client")
    save(scale_plan(), folder / "scale.plan")
    save(two_input_plan(), folder / "two.plan")
    np.save(folder / "x.npy", row_input())
    np.save(folder / "w.npy", np.array([3.0, 0.0], np.float32))
    return folder


@pytest.fixture(scope="module")
def served(folder):
    plans = {"scale": folder / "scale.plan", "two": folder / "two.plan"}
    with serving(folder, "--unix", folder / "socket", plans=plans) as served:
        yield served


def client(served, folder, *arguments, status=0, url=None):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "runtime_edge.cli", "client"),
            *map(str, arguments),
            *("--url", url or f"http://{served.url}"),
        ],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_infer_writes_what_the_plan_computes(served, folder):
    text = client(
        *(served, folder, "infer", "two", "--input", "x=x.npy", "--input", "w=w.npy"),
        *("--output-dir", "out"),
    )
    assert re.search(r"y: FP32 1x1000, 3 to 3000, largest at 999 -> out.y\.npy", text)
    np.testing.assert_array_equal(np.load(folder / "out" / "y.npy"), row_input() * 3)


def test_the_unix_socket_too(served, folder):
    text = client(
        *(served, folder, "infer", "scale", "--input", "x=x.npy", "--json"),
        url=f"unix:{folder / 'socket'}",
    )
    assert json.loads(text)["outputs"][0]["max"] == 500.0


def test_health_models_show_stats_status_metrics_trace(served, folder):
    assert client(served, folder, "health") == "ready\n"
    assert [m["name"] for m in json.loads(client(served, folder, "models"))] == ["scale", "two"]
    assert json.loads(client(served, folder, "show", "two"))["platform"] == "edgeplan_plan"
    assert len(json.loads(client(served, folder, "stats"))["model_stats"]) == 2
    assert json.loads(client(served, folder, "status"))["ready"]
    assert "nv_inference_count" in client(served, folder, "metrics")
    assert "traceEvents" in json.loads(client(served, folder, "trace"))


def test_unload_and_load(served, folder):
    client(served, folder, "unload", "two")
    assert client(served, folder, "health") == "ready\n"
    assert "not ready" in client(served, folder, "show", "two", status=1)
    client(served, folder, "load", "two")
    client(served, folder, "show", "two")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infer"], "needs the name of a model"),
        (["infer", "nothing"], "404: model 'nothing' is not known"),
        (["infer", "scale"], "input 'x' is missing"),
        (["infer", "scale", "--input", "q=x.npy"], "has the inputs x"),
        (["infer", "scale", "--input", "x=scale.plan"], "not a .npy file"),
        (["infer", "scale", "--input", "x=x.npy", "--timeout-ms", "0.001"], "503: .*deadline"),
        (["health", "--url", "ftp://x"], "expected http"),
        (["health", "--url", "http://127.0.0.1:1"], "is `edgeplan serve` running"),
    ],
)
def test_mistakes_are_one_line(served, folder, arguments, message):
    if "--url" in arguments:
        url = arguments[-1]
        text = client(served, folder, *arguments[:-2], status=1, url=url)
    else:
        text = client(served, folder, *arguments, status=1)
    assert re.search(message, text)


def test_the_curl_session_runs_as_it_is_written(served, folder):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = subprocess.run(
        ["bash", str(EXAMPLES / "curl_session.sh")],
        cwd=folder,
        env={**ENVIRONMENT, "EDGEPLAN_URL": f"http://{served.url}", "MODEL": "two"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"ready":true' in done.stdout
    assert '"inference_count"' in done.stdout


def test_the_folder_watcher_classifies_new_pictures_once(served, tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "camera"
    folder.mkdir()
    watcher = subprocess.Popen(
        [
            *(sys.executable, str(EXAMPLES / "watch_folder.py"), str(folder)),
            *("--url", f"http://{served.url}", "--model", "scale", "--shape", "1x1000"),
            *("--size", "25x40", "--grey", "--count", "3"),
        ],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for number in range(3):
            fresh = folder / f".{number}.part"
            image.new("L", (50, 80), 10 * number).save(fresh, "PNG")
            os.replace(fresh, folder / f"{number}.png")
        wait_until(lambda: watcher.poll() is not None, "three pictures are done")
        text = watcher.stdout.read()
    finally:
        watcher.kill()
        watcher.wait()
        watcher.stdout.close()
    assert watcher.returncode == 0
    assert sorted(line.split(":")[0] for line in text.splitlines()) == ["0.png", "1.png", "2.png"]


def test_the_tritonclient_example(served):
    pytest.importorskip("tritonclient.http")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "triton_client.py"), served.url, "two"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "y: (1, 1000)" in done.stdout
