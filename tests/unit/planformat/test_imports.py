"""Reading a plan needs neither protobuf nor numpy nor PyNaCl."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import planformat

ROOT = Path(planformat.__file__).parents[1]


def modules_after(code: str) -> set[str]:
    """Top-level names of what is imported after running code in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_alone_loads_no_other_module_of_the_package():
    code = "import planformat, sys\nassert not [m for m in sys.modules if 'planformat.' in m]"
    modules_after(code)


def test_reading_needs_the_standard_library_only():
    golden = ROOT / "tests" / "golden" / "sample_v1.0.plan"
    loaded = modules_after(f"import planformat\nplanformat.open_plan({str(golden)!r})")
    assert not loaded & {"google", "numpy", "nacl", "onnx"}


def test_every_public_name_is_there():
    for name in planformat.__all__:
        assert getattr(planformat, name).__name__ == name
