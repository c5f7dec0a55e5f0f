#!/usr/bin/env bash
# Runs the tests of the CUDA runtime on this machine's GPU. Needs nvcc, and Python 3.10 or newer with
# numpy, protobuf and pytest. The first argument may be a folder of wheels (pycuda, which has none on
# the package index) to install for the run; other arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
if [ $# -gt 0 ] && [ -d "$1" ]; then
    site=$(mktemp -d)
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$1"/*.whl
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
    shift
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "$python" -m pytest -m gpu -s -p no:cacheprovider tests/gpu/test_runtime_cuda.py "$@"
