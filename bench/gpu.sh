#!/usr/bin/env bash
# Everything that a machine with an NVIDIA GPU is for, in less than ten minutes on 16 cores, without a network:
# builds for this GPU, runs the tests on it, the sanitizers, the fragments of the tensor cores, the self-test, and
# the benchmark against torch. Each stage has a time limit and loses nothing but itself.
#   bench/gpu.sh OUT [STAGE...]     all stages, or some, with what was built before (BUILD, build/gpu)
#     stages: build doctor fragments tests sanitizers sm90 ops train infer compiled
# needs nvcc, compute-sanitizer, and Python with torch, numpy, pybind11, cmake, ninja, pytest, hypothesis, Pillow
# and safetensors. OUT gets log.txt, record.json, fragments.npz and the benchmark's *.json: 8 files.
set -uo pipefail
out=$(realpath -m "${1:?the folder to write to}")
shift
cd "$(dirname "$0")/.." || exit
mkdir -p "$out"
python=${PYTHON:-python3}
build=${BUILD:-$PWD/build/gpu} # git ignores it: a copy of the tree keeps it
device=${DEVICE:-cuda} # simt tries the script without a GPU
stages=" ${*:-build doctor fragments tests sanitizers sm90 ops train infer compiled} "
deadline=${SECONDS_IN_ALL:-570}
log=$out/log.txt
pieces=$(mktemp -d) capability=unknown
trap 'rm -rf "$pieces"' EXIT
touch "$log"
# cmake and ninja may have come with pip, nvcc and compute-sanitizer lie beside each other.
PATH=$("$python" -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$PATH
PATH=$PATH${CUDA_HOME:+:$CUDA_HOME/bin}:/usr/local/cuda/bin
export CONVLET_UNPROVEN_CUDA=1 PYTHONUNBUFFERED=1 PYTHONPATH=$build/pkg:$PWD/tests:$PWD
export XDG_CACHE_HOME=$build/cache # the self-test's verdict of this build

wanted() { [[ $stages == *" $1 "* ]]; }

# limited NAME SECONDS COMMAND...: its output goes to a piece of the log; what is left of all time is a limit, too.
limited() {
  local piece=$pieces/$1 limit=$2
  shift 2
  ((limit > deadline - SECONDS)) && limit=$((deadline - SECONDS))
  if ((limit < 5)); then
    echo "no time was left" >"$piece"
    return 124
  fi
  timeout -s INT -k 10 "$limit" "$@" >"$piece" 2>&1 # pytest then says what has failed so far
}

# finish NAME CODE START: its pieces to the log, with how and when it ended; the record as it is now.
finish() {
  local piece
  for piece in "$pieces/$1" "$pieces/$1"-*; do
    [[ -f $piece ]] && { echo "==== ${piece##*/}"; tail -c 1000000 "$piece"; } >>"$log"
  done
  echo "$1: exit code $2 after $((SECONDS - $3)) s: $(tail -n 1 "$pieces/$1" | cut -c 1-300)" | tee -a "$log"
  write_record
  return "$2"
}

# part NAME SECONDS COMMAND...
part() {
  local start=$SECONDS
  limited "$@"
  finish "$1" $? "$start"
}

# The suite on the GPU, in several processes at once. Kernels that are off unless asked for are apart (stage sm90):
# after a fault or a hang there the rest goes on.
run_tests() {
  local parts=$(($(nproc) / 3 + 1)) k worst=0
  local -a running=()
  trap '' INT                                      # waits for what its processes have to say
  export OMP_NUM_THREADS=$(($(nproc) / parts + 1)) # of torch, in each
  for ((k = 0; k < parts; ++k)); do
    "$python" -m pytest -q --device "$device" --part "$k/$parts" -p no:cacheprovider \
      --ignore-glob="*/test_sm90*.py" >"$pieces/tests-$k" 2>&1 &
    running+=($!)
  done
  for ((k = 0; k < parts; ++k)); do
    wait "${running[k]}" || worst=$?
  done
  echo "$parts processes: $(grep -ahoE '[0-9]+ (passed|failed|error)' "$pieces"/tests-* | sort -k2 |
    awk '{n[$2] += $1} END {for (w in n) printf "%d %s ", n[w], w}')"
  return "$worst"
}

# compute-sanitizer slows kernels down by a factor of 10 and more: every kernel at sizes of networks, then every 79th
# test, for awkward sizes (a prime: the tests of a file are products of parameters).
sanitize() {
  compute-sanitizer --tool "$1" --error-exitcode 9 "$python" tests/simt/workloads.py "$device" &&
    compute-sanitizer --tool "$1" --error-exitcode 9 \
      "$python" -m pytest -q -x --device "$device" --part 0/79 -p no:cacheprovider \
      --ignore-glob="*/test_sm90*.py" --ignore-glob="*/test_cuda_libraries.py"
}
export -f run_tests sanitize
export python pieces device

# bench NAME SECONDS ARGUMENTS...
bench() {
  local name=$1 seconds=$2
  shift 2
  part "$name" $((seconds + 40)) "$python" -m bench "$@" --device cuda --rounds 2 --seconds 0.3 --budget "$seconds" \
    --json "$out/$name.json"
}

# What has ended how, whatever else has failed.
write_record() {
  "$python" - "$out" "sm_$capability" <<'P'
import json, re, sys
from pathlib import Path

folder, architecture = Path(sys.argv[1]), sys.argv[2]
parts = {
    m[1]: int(m[2])
    for m in re.finditer(r"^(\w+): exit code (\d+)", (folder / "log.txt").read_text(errors="replace"), re.M)
}
needed = ("build", "doctor", "tests", "memcheck", "racecheck", "initcheck")
record = {
    "architecture": architecture,
    "passed": all(parts.get(name) == 0 for name in needed),
    "exit_codes": parts,
}
(folder / "record.json").write_text(json.dumps(record, indent=1))
P
}

part gpu 20 nvidia-smi
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
[[ $capability =~ ^[0-9]+$ ]] || # a machine without nvidia-smi
  capability=$("$python" -c 'import torch; print(*torch.cuda.get_device_capability(0), sep="")')
if wanted build; then
  part configure 60 cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCONVLET_CUDA=ON \
    -DCONVLET_CUDA_ARCHITECTURES="$capability-real" -DPython_EXECUTABLE="$(command -v "$python")" \
    -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" || exit
  part build 240 cmake --build "$build" -j "$(nproc)" || exit
fi
wanted doctor && part doctor 60 "$python" -m convlet doctor --selftest
wanted fragments && part fragments 40 "$python" tests/simt/fragments.py write "$out/fragments.npz"
# Nothing is timed here, so the suite and the sanitizers run at once.
begin=$SECONDS tools=() running=()
wanted sanitizers && tools=(memcheck racecheck initcheck)
for tool in "${tools[@]}"; do
  limited "$tool" 150 bash -c "sanitize $tool" &
  running+=($!)
done
wanted tests && part tests 170 bash -c run_tests
for i in "${!tools[@]}"; do
  wait "${running[i]}"
  finish "${tools[i]}" $? "$begin"
done
eager="torch:cuda channels_last" graph="torch:cuda graph"
wanted ops && bench ops 60 ops --precision tf32 --batches 256 --cases "conv2d M" "conv2d_backward" max_pool2d \
  batch_norm adam relu
if wanted sm90 && [[ $capability == 90 ]]; then
  part sm90 40 "$python" -m pytest -q --device "$device" -p no:cacheprovider tests/test_sm90*.py
  CONVLET_SM90=1 bench ops_sm90 30 ops --precision bfloat16 --batches 256 --cases "conv2d M5" "conv2d M6" \
    --peers "$eager bfloat16"
fi
wanted train && bench train 90 train --precision bfloat16 --models M1 M2 M3 M5 --batches 128 1024 \
  --peers "$eager" "$eager bfloat16" "$graph" "$graph bfloat16"
wanted infer && bench infer 30 infer --models M1 M5 --batches 1 64 --peers "$eager" "$graph"
# The autotuning of torch.compile takes what time is left, or more.
wanted compiled && bench compiled 60 train --precision bfloat16 --models M1 --batches 128 \
  --peers "torch:cuda compile bfloat16"
echo "all of it is in $out; record.json goes to bench/results/gpu" | tee -a "$log"
