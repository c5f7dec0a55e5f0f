#!/usr/bin/env bash
# Makes this machine's own CUDA 13.0 NVRTC usable as edgeplan's 13.0 toolkit, where pip cannot reach an
# index, and puts the wheels of a folder (pycuda) on PYTHONPATH. Source it:
#     . scripts/gpu/prepare.sh WHEELS_FOLDER
python=${PYTHON:-python3}
if [ -d "${1:-}" ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target /tmp/edgeplan-site "$1"/*.whl || return 1
    export PYTHONPATH=/tmp/edgeplan-site${PYTHONPATH:+:$PYTHONPATH}
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
"$python" - <<'EOF'
import json, pathlib, shutil, site, sysconfig

from builder_host.codegen.nvrtc_install import PACKAGES, default_toolkit_root

root = default_toolkit_root() / "13.0"
places = [pathlib.Path(sysconfig.get_paths()["purelib"]) / "nvidia", pathlib.Path("/usr/local/cuda")]
library = next(iter(sorted(p for place in places for p in place.rglob("libnvrtc.so.13*"))))
headers = [p.parent for place in places for p in place.rglob("cuda_fp16.h")]
mma = [p for place in places for p in place.rglob("crt/mma.h")]
target = root / "nvidia" / "cu13"
shutil.rmtree(root, ignore_errors=True)
(target / "lib").mkdir(parents=True)
for path in library.parent.glob("libnvrtc*"):
    (target / "lib" / path.name).symlink_to(path)
if not (target / "lib" / "libnvrtc.so.13").exists():
    (target / "lib" / "libnvrtc.so.13").symlink_to(library)
(target / "include").symlink_to((mma[0].parents[1] if mma else headers[0]).resolve())
ptxas = [p for place in places for p in place.rglob("bin/ptxas")]
if ptxas:
    (target / "bin").mkdir()
    (target / "bin" / "ptxas").symlink_to(ptxas[0])
(root / "edgeplan-toolkit.json").write_text(json.dumps({"packages": list(PACKAGES[13, 0])}))
print("toolkit 13.0:", library, (target / "include").resolve())
EOF
