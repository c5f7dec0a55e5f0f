#!/usr/bin/env bash
# Builds a pycuda wheel, which the package index does not have, on a machine with neither GPU nor CUDA.
# Takes one to two minutes and needs g++. The wheel is for this machine's processor and Python.
#   scripts/gpu/build_pycuda.sh FOLDER [CUDA]
# FOLDER receives the wheel. CUDA is the version of the headers, 12.6 (default; drivers for CUDA 12 and
# later) or 13.0; a driver of an older major version lacks functions that the newer headers bind.
set -euo pipefail
target=$(mkdir -p "$1" && cd "$1" && pwd)
cuda=${2:-12.6}
python=${PYTHON:-python3}
version=2026.1
case $cuda in
    12.6) packages="nvidia-cuda-runtime-cu12==12.6.77 nvidia-cuda-profiler-api-cu12==12.6.77" ;;
    13.0) packages="nvidia-cuda-runtime==13.0.96 nvidia-cuda-profiler-api==13.0.85 nvidia-cuda-crt==13.0.88" ;;
    *) echo "CUDA $cuda: known are 12.6 and 13.0" >&2 && exit 2 ;;
esac
command -v g++ >/dev/null || { echo "g++ is missing: apt-get install g++" >&2 && exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip=("$python" -m pip --quiet --disable-pip-version-check)
# shellcheck disable=SC2086
"${pip[@]}" install --no-deps --target "$work/cuda" $packages
"${pip[@]}" download --no-deps --no-binary pycuda --dest "$work" "pycuda==$version"
tar -xf "$work/pycuda-$version.tar.gz" -C "$work"
mkdir "$work/root"
for folder in $(find "$work/cuda" -type d -name include); do
    cp -r "$folder" "$work/root/"
done
mkdir "$work/stub"
echo | gcc -x c -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$work/stub/libcuda.so" -
cat >"$work/pycuda-$version/siteconf.py" <<END
CUDA_ROOT = "$work/root"
CUDA_INC_DIR = ["$work/root/include"]
CUDADRV_LIB_DIR = ["$work/stub"]
CUDA_ENABLE_CURAND = False
CUDA_ENABLE_GL = False
CXXFLAGS = ["-g0", "-O2", "-w"]
LDFLAGS = ["-s"]
END
"${pip[@]}" wheel --no-deps --wheel-dir "$target" "$work/pycuda-$version"
