"""Make docs/images/inspect.png: the inspection page of SqueezeNet v1.1, built and timed here.

Run on a machine that does nothing else: python scripts/make_inspect_picture.py [PLAN]
Needs Chromium, Pillow and edgeplan's builder. With PLAN the page of that plan is drawn instead.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "inspect.png"
MODEL = ROOT / "tests" / "data" / "caffe" / "squeezenet_v1.1"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT = 1200, 2100
SHOWN_WIDTH = 900
SHORT_BOXES = ".scroll { max-height: 480px }"
MAX_BYTES = 300_000


def main(arguments: list[str]) -> int:
    """Write the picture; 1 when there is no browser or the picture is too large."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"none of {', '.join(BROWSERS)} is installed", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(arguments[0]) if arguments else build(Path(folder))
        page, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        edgeplan("inspect", plan, "--html", page)
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace("</style>", f"{SHORT_BOXES}</style>"), encoding="utf-8")
        subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--virtual-time-budget=3000", f"--window-size={WIDTH},{HEIGHT}"),
                *(f"--screenshot={shot}", page.as_uri()),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
        with Image.open(shot) as image:
            size = (SHOWN_WIDTH, image.height * SHOWN_WIDTH // image.width)
            small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    small.save(PICTURE, optimize=True)
    num_bytes = PICTURE.stat().st_size
    print(f"{PICTURE.relative_to(ROOT)}: {size[0]}x{size[1]}, {num_bytes:,} bytes")
    return 0 if num_bytes <= MAX_BYTES else 1


def build(folder: Path) -> Path:
    """A plan for one core of this machine, tuned here."""
    plan = folder / "squeezenet.plan"
    network = folder / "squeezenet_v1.1.prototxt"  # plans bear the names of their files
    shutil.copy(MODEL / "deploy.prototxt", network)
    files = (network, MODEL / "squeezenet_v1.1_fp16w.caffemodel")
    edgeplan("build", *files, "-o", plan, "--batch", "1", "--threads", "1")
    return plan


def edgeplan(*arguments: object) -> None:
    """Run a command of this checkout."""
    subprocess.run(
        [sys.executable, "-m", "runtime_edge.cli", *map(str, arguments)], cwd=ROOT, check=True
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
