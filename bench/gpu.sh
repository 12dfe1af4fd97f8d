#!/usr/bin/env bash
# Everything that a machine with an NVIDIA GPU is for, in less than ten minutes on 16 cores, without a network:
# builds for this GPU, runs the tests on it, the sanitizers, the fragments of the tensor cores, the self-test, and
# the benchmark against torch. Writes all of it to one folder, and summary.txt there.
#   bench/gpu.sh OUT        needs nvcc, and Python with torch, numpy, pybind11, cmake, ninja, pytest, hypothesis,
#                           Pillow and safetensors
set -uo pipefail
out=$(realpath -m "${1:?the folder to write to}")
cd "$(dirname "$0")/.."
mkdir -p "$out"
python=${PYTHON:-python3}
build=${BUILD:-$PWD/build-gpu}
summary=$out/summary.txt
: >"$summary"
export CONVLET_UNPROVEN_CUDA=1 PYTHONPATH=$build/pkg:$PWD/tests:$PWD

# part NAME SECONDS COMMAND...: its output in OUT/NAME.txt, its end and time in the summary.
part() {
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  timeout "$limit" "$@" >"$out/$name.txt" 2>&1
  local code=$?
  echo "$name: exit code $code after $((SECONDS - start)) s: $(tail -n 1 "$out/$name.txt")" | tee -a "$summary"
  return $code
}

part gpu 20 nvidia-smi
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
part configure 60 cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCONVLET_CUDA=ON \
  -DCONVLET_CUDA_ARCHITECTURES="$capability-real" -DPython_EXECUTABLE="$(command -v "$python")" \
  -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" || exit
part build 240 cmake --build "$build" -j "$(nproc)" || exit

part doctor 60 "$python" -m convlet doctor --selftest
# Kernels that are off unless asked for, in a process of their own: after a fault or a hang there the rest goes on.
sm90="tests/test_sm90_tiles.py tests/test_sm90.py"
part tests 140 "$python" -m pytest -q --device cuda -p no:cacheprovider ${sm90//tests/--ignore=tests}
[ "$capability" = 90 ] && part sm90 60 "$python" -m pytest -q --device cuda -p no:cacheprovider $sm90
part fragments 60 "$python" tests/simt/fragments.py write "$out/fragments.npz"

# compute-sanitizer slows kernels down by a factor of 10 and more: one file of tests for each family.
families="tests/test_conv2d.py tests/test_dense.py tests/test_pool2d.py tests/test_softmax_cross_entropy.py
  tests/test_batch_norm.py tests/test_layer_norm.py tests/test_attention.py tests/test_recurrent.py
  tests/test_optimizer.py tests/test_reduce.py tests/test_capture.py"
for tool in memcheck racecheck initcheck; do
  part "$tool" 45 compute-sanitizer --tool "$tool" --error-exitcode 9 \
    "$python" -m pytest -q -x --device cuda -p no:cacheprovider $families -k "exact or awkward or captured"
done

part bench 120 "$python" bench/gpu.py --json "$out/times.json" --budget 90
grep -q "^sm90: exit code 0 " "$summary" &&
  CONVLET_SM90=1 part bench_sm90 60 "$python" bench/gpu.py --json "$out/times_sm90.json" --budget 40
"$python" - "$out" "sm_$capability" <<'P'
import json, re, sys
from pathlib import Path

folder, architecture = Path(sys.argv[1]), sys.argv[2]
parts = {
    m[1]: int(m[2])
    for m in re.finditer(r"^(\w+): exit code (\d+)", (folder / "summary.txt").read_text(), re.M)
}
needed = ("build", "doctor", "tests", "memcheck", "racecheck", "initcheck")
record = {
    "architecture": architecture,
    "passed": all(parts.get(name) == 0 for name in needed),
    "exit_codes": parts,
}
(folder / "record.json").write_text(json.dumps(record, indent=1))
P
echo "all of it is in $out; record.json goes to bench/results/gpu" | tee -a "$summary"
