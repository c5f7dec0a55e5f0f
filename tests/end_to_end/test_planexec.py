"""planexec: command lines of giexec and trtexec as people have them in scripts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.cases import DATA

from builder_host.planexec.inference import Pace, Session, input_arrays, measure
from builder_host.planexec.main import main
from builder_host.planexec.metrics import percentile, summarise
from builder_host.planexec.options import all_options, option_table
from runtime_edge import load

ROOT = Path(__file__).resolve().parents[2]
LENET = DATA / "caffe" / "lenet"
MODEL = (f"--deploy={LENET / 'lenet.prototxt'}", f"--model={LENET / 'lenet_iter_9000.caffemodel'}")
SHORT = ("--warmUp=1", "--duration=0.01", "--builderOptimizationLevel=0")

# Options of giexec, and of trtexec 5.1, 8.6 and 11.1.
KNOWN = """
deploy output model batch device iterations avgRuns workspace half2 fp16 int8 calib engine
saveEngine loadEngine verbose hostTime uff uffInput onnx percentile safe useDLACore
allowGPUFallback useSpinWait dumpOutput dumpLayerTime uffNHWC maxBatch fp8 best minShapesCalib
optShapesCalib maxShapesCalib precisionConstraints layerPrecisions layerOutputTypes minTiming
heuristic restricted nvtxMode buildOnly minShapes optShapes maxShapes profile inputIOFormats
outputIOFormats memPoolSize profilingVerbosity monitorMemory avgTiming noBuilderCache
noCompilationCache timingCacheFile errorOnTimingCacheMiss maxTactics builderOptimizationLevel
tilingOptimizationLevel l2LimitForTiling tacticSources preview refit stripWeights stripAllWeights
allowWeightStreaming refitFromOnnx sparsity versionCompatible vc excludeLeanRuntime leanDLLPath
useRuntime hardwareCompatibilityLevel runtimePlatform remoteAutoTuningConfig cpuOnly
pluginInstanceNorm enablePluginOverride uint8AsymmetricQuantizationDLA reportCapabilityDLA
adjustForDLA noTF32 stronglyTyped directIO decomposableAttentions layerDeviceTypes
buildDLAStandalone consistency dumpKernelText safetyPlugins staticPlugins dynamicPlugins
setPluginsToSerialize ignoreParsedPluginLibs asyncFileReader getPlanVersionOnly tempdir
tempfileControls markDebug markUnfusedTensorsAsDebugTensors saveDebugTensors saveAllDebugTensors
shapes loadInputs warmUp duration sleepTime idleTime infStreams threads exposeDMA
includeDataTransfers useManagedMemory noSpinWait noCudaGraph timeDeserialize timeRefit
skipInference persistentCacheRatio useProfile allocationStrategy maxAuxStreams
weightStreamingBudget loadRefOutputs refPair accuracyAlgorithm atol rtol accuracyThreshold
tuneBuildRoutes tuneBuildRouteFile tuningSearch tuningCacheFile tuningTimeOut saveAllEngines
dryRun continue helpBuildRoute setBuildRoute dumpRefit dumpRawBindingsToFile dumpProfile
dumpLayerInfo dumpOptimizationProfile exportTimes exportOutput exportProfile exportLayerInfo
"""


def planexec(*arguments: object, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "builder_host.planexec", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == status, done.stderr + done.stdout
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with lenet.plan."""
    made = tmp_path_factory.mktemp("planexec")
    planexec(
        *(*MODEL, "--output=prob", "--batch=1", "--saveEngine=lenet.plan", "--buildOnly"),
        "--builderOptimizationLevel=0",
        cwd=made,
    )
    return made


def test_a_command_line_of_giexecs_time(tmp_path):
    table = "TRT-4000-EntropyCalibration2\ndata: 3c010a14\n"
    (tmp_path / "calib.txt").write_text(table)
    done = planexec(
        *(*MODEL, "--output=prob", "--batch=4", "--iterations=10", "--avgRuns=10", "--half2"),
        *("--engine=lenet.plan", "--calib=calib.txt", *SHORT),
        cwd=tmp_path,
    )
    assert (tmp_path / "lenet.plan").stat().st_size > 1_000_000
    assert "--fp16: this CPU target has no float16 kernels" in done.stdout
    rows = re.findall(r"Average over 10 runs is ([\d.e-]+) ms \(host walltime is", done.stdout)
    assert rows
    assert all(float(row) > 0 for row in rows)
    metrics = ("Throughput", "Latency", "Enqueue Time", "H2D Latency", "GPU Compute Time")
    for metric in (*metrics, "D2H Latency", "Total Host Walltime", "Total GPU Compute Time"):
        assert f"[I] {metric}: " in done.stdout
    again = planexec("--loadEngine=lenet.plan", "--timeDeserialize", *SHORT, cwd=tmp_path)
    assert "Engine deserialized in" in again.stdout


def test_exports_have_the_shapes_that_scripts_read(folder):
    planexec(
        *("--loadEngine=lenet.plan", *SHORT, "--exportTimes=t.json", "--exportOutput=o.json"),
        *("--exportProfile=p.json", "--exportLayerInfo=l.json", "--includeDataTransfers"),
        *("--infStreams=2", "--dumpProfile", "--dumpLayerInfo", "--dumpOptimizationProfile"),
        cwd=folder,
    )
    times = json.loads((folder / "t.json").read_text())
    assert len(times) >= 20
    for row in times:
        assert row["latencyMs"] == pytest.approx(row["h2dMs"] + row["computeMs"] + row["d2hMs"])
        assert 0 < row["h2dMs"] == pytest.approx(row["endH2dMs"] - row["startH2dMs"])
        assert 0 < row["computeMs"] == pytest.approx(row["endComputeMs"] - row["startComputeMs"])
        assert row["startEnqMs"] <= row["endEnqMs"] <= row["endD2hMs"]
    (output,) = json.loads((folder / "o.json").read_text())
    assert (output["name"], output["dimensions"]) == ("prob", "1x10")
    assert sum(output["values"]) == pytest.approx(1, abs=1e-5)
    count, *steps = json.loads((folder / "p.json").read_text())
    assert count == {"count": 20}
    assert sum(step["percentage"] for step in steps) == pytest.approx(100)
    info = json.loads((folder / "l.json").read_text())
    assert info["Bindings"] == ["data", "prob"]
    assert info["Layers"][0]["LayerType"] in ("convolution", "pooled_convolution")


def test_inputs_and_expected_outputs_from_files(folder):
    digits = np.load(LENET / "digits.in.npy")[:1].astype(np.float32) / np.float32(256)
    expected = np.load(LENET / "digits.out.prob.npy")[:1]
    digits.tofile(folder / "x.bin")
    np.save(folder / "y.npy", expected)
    check = ("--loadEngine=lenet.plan", *SHORT, "--loadInputs=data:x.bin", "--dumpOutput")
    reference = ("--loadRefOutputs=prob:y.npy", "--accuracyThreshold=1e-4")
    for algorithm in ("l0", "l1", "l2", "lInf", "cos"):
        options = (f"--accuracyAlgorithm={algorithm}", "--atol=1e-4")
        done = planexec(*check, *reference, *options, cwd=folder)
        assert "passed" in done.stdout
    np.save(folder / "y.npy", np.roll(expected, 1))
    done = planexec(*check, *reference, cwd=folder, status=1)
    assert "threshold 0.0001: FAILED" in done.stdout
    done = planexec(*check, "--loadRefOutputs=prob:y.npy", cwd=folder, status=1)
    assert "needs --accuracyThreshold above 0" in done.stderr


def test_min_opt_max_shapes_make_profiles(tmp_path):
    ranges = [f"--{n}Shapes=data:{b}x1x28x28" for n, b in (("min", 1), ("opt", 2), ("max", 4))]
    done = planexec(
        *(*MODEL, "--output=prob", *ranges, *SHORT, "--useProfile=2", "--dumpOptimizationProfile"),
        cwd=tmp_path,
    )
    assert "profile max," in done.stdout
    assert "Profile opt: {'data': [2, 1, 28, 28]" in done.stdout


def test_random_weights_without_a_model(tmp_path):
    done = planexec(f"--deploy={LENET / 'lenet.prototxt'}", "--output=prob", *SHORT, cwd=tmp_path)
    assert "Throughput" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--useDLACore=0",), "--useDLACore: plans run on the GPU or the CPU"),
        (("--hardwareCompatibilityLevel=ampere+",), "build one per --target"),
        ((), "name one network by --deploy, --onnx or --uff; given: none"),
        (("--deploy=a", "--onnx=b"), "given: --deploy, --onnx"),
        (("--deploy=a.prototxt",), "--deploy needs --output"),
        (("--onnx=none.onnx",), "none.onnx: no such file"),
        (("--loadEngine=none.plan",), "none.plan: cannot be opened"),
        (("--loadEngine=a.plan", "--onnx=b"), "--loadEngine and --onnx: give one of them"),
        ((*MODEL, "--output=prob", "--memPoolSize=workspace:many"), "is not POOL:N"),
        (("--loadEngine=a.plan", "--idleTime=-1"), "--idleTime=-1.0: expected a finite number"),
        (("--loadEngine=a.plan", "--avgRuns=-2"), "--avgRuns=-2: expected a finite number"),
        (("--loadEngine=a.plan", "--saveEngine=b.plan"), "--loadEngine and --saveEngine: "),
        ((*MODEL, "--output=prob", "--bf16", "--fp16"), "--bf16 and --fp16: a plan stores"),
        ((*MODEL, "--output=prob", "--measure=here"), "--measure=here: expected local, none, or"),
        ((*MODEL, "--output=prob", "--measure=none,tcp://a"), "candidates are timed here (local)"),
        ((*MODEL, "--output=prob", "--builderOptimizationLevel=6"), "expected 0 to 5"),
        ((*MODEL, "--output=prob", "--batch=0"), "--batch=0: expected at least 1"),
        (
            (*MODEL, "--output=prob", "--batch=2", "--shapes=data:4x1x28x28"),
            "--batch=2 and --shapes=data:4x1x28x28: they give different batches",
        ),
        ((*MODEL, "--output=prob", "--shapes=a:1,a:2"), "'a' is named twice: (1,) and (2,)"),
        (("--loadEngine=a.plan", "--infStreams=0"), "--infStreams=0: expected at least 1"),
    ],
)
def test_what_cannot_be_done_is_said(arguments, message, tmp_path):
    done = planexec(*arguments, cwd=tmp_path, status=1)
    assert message in done.stderr


def test_no_running_report_is_asked_for(folder):
    done = planexec("--loadEngine=lenet.plan", *SHORT, "--avgRuns=0", cwd=folder)
    assert "Average over" not in done.stdout
    assert "Throughput: " in done.stdout


def test_all_streams_end_when_one_fails_or_is_interrupted(folder):
    class Interrupted(Session):
        def run(self, zero, *, has_transfers):
            if self is sessions[0] and len(started) > 3:
                raise KeyboardInterrupt
            started.append(self)
            return super().run(zero, has_transfers=has_transfers)

    started = []
    with load(folder / "lenet.plan") as engine:
        inputs = input_arrays(engine, engine.profiles[0], {})
        sessions = [Interrupted(engine, engine.profiles[0], inputs) for _ in range(2)]
        endless = Pace(warm_up_ms=0, duration_s=-1, iterations=0, idle_ms=0, has_transfers=False)
        try:
            queries, _ = measure(sessions, endless)
        finally:
            for session in sessions:
                session.close()
    assert queries


def test_options_that_change_nothing_are_noted(folder):
    done = planexec("--loadEngine=lenet.plan", *SHORT, "--useCudaGraph", cwd=folder)
    assert "note: --useCudaGraph: an inference is always one graph launch" in done.stdout


NO_PLAN = (*MODEL, "--output=prob", "--builderOptimizationLevel=0", "--skipInference")
RUN = ("--loadEngine=lenet.plan", "--warmUp=0", "--duration=0", "--iterations=1")
FLAGS = ("fp16", "int8", "best", "refit", "uffNHWC", "errorOnTimingCacheMiss")


@pytest.mark.parametrize(
    ("arguments", "idle"),
    [
        ((*NO_PLAN, "--stripWeights"), {"stripWeights": "without --saveEngine"}),
        (NO_PLAN, {"skipInference": "but the time it takes: without --saveEngine"}),
        (
            (*NO_PLAN, "--iterations=5", "--loadInputs=a:b", "--exportTimes=t", "--dumpOutput"),
            dict.fromkeys(["iterations", "loadInputs", "exportTimes", "dumpOutput"], "with --skip"),
        ),
        ((*NO_PLAN, "--timeDeserialize"), {"timeDeserialize": "with --skipInference"}),
        ((*NO_PLAN, "--calib=none.txt"), {"calib": "without --int8 or --best"}),
        ((*NO_PLAN, "--uffNHWC", "--uffInput=a,1"), dict.fromkeys(["uffNHWC", "uffInput"], "wit")),
        ((*NO_PLAN, "--measure=tcp://a"), {"measure": "with --builderOptimizationLevel=0"}),
        (
            (*NO_PLAN, "--workspace=1", "--memPoolSize=workspace:2M,dlaSRAM:1M"),
            {"workspace": "beside --memPoolSize", "memPoolSize": "for 'dlaSRAM'"},
        ),
        ((*NO_PLAN, "--timeRefit"), {"timeRefit": "without --refitFromOnnx"}),
        (
            (*RUN, *(f"--{name}" for name in FLAGS)),
            dict.fromkeys(FLAGS, "with --loadEngine: its plan is built already"),
        ),
        (
            (*RUN, "--model=m", "--calib=c", "--output=o", "--tempdir=t", "--minShapes=a:1"),
            dict.fromkeys(["model", "calib", "output", "tempdir", "minShapes"], "with --loadEng"),
        ),
        (
            (*RUN, "--accuracyAlgorithm=l1", "--atol=1", "--accuracyThreshold=1"),
            dict.fromkeys(["accuracyAlgorithm", "atol", "accuracyThreshold"], "without --loadRef"),
        ),
        (("--loadEngine=lenet.plan", "--getPlanVersionOnly", "--verbose"), {"verbose": "with --g"}),
    ],
)
def test_what_is_idle_beside_other_options_is_noted(arguments, idle, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main([str(argument) for argument in arguments]) == 0
    told = capsys.readouterr().out
    for name, reason in idle.items():
        assert f"note: --{name}: changes nothing {reason}" in told
    assert told.count(": changes nothing ") == len(idle) + (
        "--skipInference" in arguments and "skipInference" not in idle
    )


def test_placeholders_and_random_weights_are_noted(tmp_path):
    deploy = (f"--deploy={LENET / 'lenet.prototxt'}", "--output=prob", "--saveEngine=x.plan")
    quick = ("--skipInference", "--builderOptimizationLevel=0")
    done = planexec(*deploy, "--int8", *quick, cwd=tmp_path)
    assert "note: --deploy without --model: the weights are random" in done.stdout
    assert "note: --int8: placeholder ranges, for speed only" in done.stdout
    done = planexec(*deploy, "--best", *quick, cwd=tmp_path)
    assert "note: --best: no layer is quantised without --calib" in done.stdout


def test_layers_and_profiles_are_told_without_a_run(tmp_path):
    ranges = [f"--{n}Shapes=data:{b}x1x28x28" for n, b in (("min", 1), ("max", 4))]
    told = ("--dumpOptimizationProfile", "--exportLayerInfo=l.json", "--dumpRefit", "--refit")
    done = planexec(
        *(*NO_PLAN, *ranges, "--saveEngine=x.plan", *told),
        cwd=tmp_path,
    )
    assert "Profile max: {'data': [4, 1, 28, 28], 'prob': [4, 10]}" in done.stdout
    assert "ip2: ip2.weights 10x500:f32:LINEAR" in done.stdout
    assert json.loads((tmp_path / "l.json").read_text())["Bindings"] == ["data", "prob"]
    done = planexec("--loadEngine=x.plan", "--skipInference", "--timeDeserialize", cwd=tmp_path)
    assert "Engine deserialized in" in done.stdout
    assert "Throughput" not in done.stdout


def test_shapes_and_batch_choose_the_profile(tmp_path):
    ranges = [f"--{n}Shapes=data:{b}x1x28x28" for n, b in (("min", 1), ("opt", 2), ("max", 4))]
    build = (*MODEL, "--output=prob", *ranges, "--saveEngine=x.plan", *SHORT)
    assert "profile max," in planexec(*build, "--shapes=data:4x1x28x28", cwd=tmp_path).stdout
    load_it = ("--loadEngine=x.plan", *RUN[1:])
    for options, profile in (
        ((), "opt"),
        (("--batch=1",), "min"),
        (("--shapes=data:4x1x28x28",), "max"),
        (("--batch=2", "--useProfile=0"), "opt"),
    ):
        assert f"profile {profile}," in planexec(*load_it, *options, cwd=tmp_path).stdout
    for options in (("--batch=3",), ("--batch=1", "--useProfile=0"), ("--shapes=data:1x1x1x1",)):
        done = planexec(*load_it, *options, cwd=tmp_path, status=1)
        assert "no profile is all that was asked for; number 0 has data [2, 1, 28" in done.stderr
    done = planexec(*load_it, "--shapes=x:1", cwd=tmp_path, status=1)
    assert "--shapes: no input 'x'; there are data" in done.stderr


def test_every_option_of_giexec_and_trtexec_is_in_the_table():
    known = {name for option in all_options() for name in option.names}
    assert set(KNOWN.split()) <= known
    assert len([n for option in all_options() for n in option.names]) == len(known)


def test_the_page_in_docs_is_the_table():
    text = (ROOT / "docs" / "planexec.md").read_text(encoding="utf-8")
    assert text.endswith(option_table()), "write it anew: python scripts/make_planexec_page.py"


def test_percentiles_drop_the_slowest():
    times = [float(i) for i in range(1, 101)]
    assert [percentile(times, p) for p in (50, 90, 95, 99, 100)] == [50, 90, 95, 99, 100]
    summary = summarise([3.0, 1.0, 2.0], [50])
    assert (summary.minimum, summary.maximum, summary.mean, summary.median) == (1, 3, 2, 2)


def test_weights_out_and_in_again(tmp_path):
    model = DATA / "onnx" / "mnist" / "mnist-8.onnx"
    planexec(
        *(f"--onnx={model}", "--saveEngine=s.plan", "--stripWeights"),
        *("--builderOptimizationLevel=0", "--skipInference"),
        cwd=tmp_path,
    )
    done = planexec("--loadEngine=s.plan", *SHORT, cwd=tmp_path, status=1)
    assert "its weights were stripped" in done.stderr
    refit = (f"--refitFromOnnx={model}", "--timeRefit", "--dumpRefit", "--saveEngine=whole.plan")
    done = planexec("--loadEngine=s.plan", *refit, *SHORT, cwd=tmp_path)
    assert "Engine refitted in" in done.stdout
    assert "Throughput" in done.stdout
    assert re.search(r"^\S.*: Parameter\S+ 8x1x5x5:f32:\S+, ", done.stdout, re.MULTILINE)
    done = planexec("--loadEngine=whole.plan", *SHORT, cwd=tmp_path)
    assert "Throughput" in done.stdout
    done = planexec(f"--onnx={model}", f"--refitFromOnnx={model}", cwd=tmp_path, status=1)
    assert "--refitFromOnnx needs --loadEngine" in done.stderr
