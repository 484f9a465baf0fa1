#!/usr/bin/env bash
# For whoever has an NVIDIA device: compares whole programs on it with the processor, times steps, and relates them to the
# roofline model of `trainc plan`. Writes one report to standard output. Needs NVIDIA's driver, a Rust toolchain, python3.
#
#     tests/on_gpu.sh [TARGET]       TARGET: cuda:sm_80 (default), cuda:sm_90, ...; chooses the code and the model's peaks
set -uo pipefail
cd "$(dirname "$0")/.."
target=${1:-cuda:sm_80}
failed=0

echo "# trainc on a CUDA device"
nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader 2>/dev/null \
    || { echo "nvidia-smi finds no device"; exit 1; }
make -s setup >&2 || exit 1
cargo build -q --release -p trainc >&2 || exit 1

echo
echo "## Whole programs against the processor"
TRAINC_ON_GPU=1 cargo test -q --release -p trainc-tests --test device -- --nocapture --test-threads 1 2>&1 \
    | grep -E "difference of all tensors|panicked|test result|on the device" || failed=1
[ "${PIPESTATUS[0]}" = 0 ] || failed=1

echo
echo "## Steps: median of 20, against the roofline model for $target (data-sheet peaks, not those of this card)"
for program in dsl-examples/bench/w1.train dsl-examples/bench/w2.train dsl-examples/bench/w3.train dsl-examples/bench/w4.train; do
    folder=$(mktemp -d)
    if target/release/trainc compile "$program" --target "$target" --out "$folder/program.trainx" 2>/dev/null \
        && target/release/trainc bench "$folder/program.trainx" --device cuda --json > "$folder/bench" 2>&1 \
        && target/release/trainc plan "$program" --target "$target" --json > "$folder/plan" 2>&1; then
        python3 - "$program" "$folder" <<'PYTHON'
import json, sys
program, folder = sys.argv[1:]
last = lambda name: json.loads(open(f"{folder}/{name}").read().strip().splitlines()[-1])
bench, plan = last("bench"), last("plan")["device"]
model = sum(launch["model_us"] for launch in plan["launches"]) / 1e3
step = bench["step_ms"]["median"]
print(f"{program}: {step:.3f} ms a step, {bench['gflops_per_second']:.0f} GFLOP/s, {plan['grids']} grids; "
      f"model ({plan['model']}) {model:.3f} ms, fraction {model / step:.2f}")
PYTHON
    else
        echo "$program: failed"; tail -3 "$folder/bench" 2>/dev/null
        failed=1
    fi
    rm -rf "$folder"
done
exit $failed
