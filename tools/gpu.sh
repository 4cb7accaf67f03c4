#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go: bash tools/gpu.sh [all|tests|bench]
#
# Results land in $OUT (default: /tmp/seqloom-gpu). Packages that the machine lacks are taken from the wheels in .whl/,
# so that no network is needed. Each step has a limit of its own: what hangs costs its share and no more. While the
# tests run, the kernels that the benchmarks need are compiled beside them; the figures are taken alone afterwards.
set -u
cd "$(dirname "$0")/.." || exit 2
WHAT=${1:-all}
OUT=${OUT:-/tmp/seqloom-gpu}
PYTHON=${PYTHON:-python3}
TESTS_SECONDS=${TESTS_SECONDS:-105}   # the tests of tests/gpu, compiling included
BENCH_SECONDS=${BENCH_SECONDS:-115}   # the figures
WORKERS=${WORKERS:-5}
SITE=$(mktemp -d)
mkdir -p "$OUT"
begin=$SECONDS

if compgen -G ".whl/*.whl" >/dev/null; then
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$SITE" .whl/*.whl \
    2>&1 | grep -v WARNING
fi
export PYTHONPATH="$PWD/src:$SITE" PYTHONUNBUFFERED=1 TRITON_INTERPRET=0 CUBLAS_WORKSPACE_CONFIG=:4096:8
export OMP_NUM_THREADS=2 NUMBA_NUM_THREADS=2 TRITON_CACHE_DIR="$SITE/triton" TORCHINDUCTOR_CACHE_DIR="$SITE/inductor"
export TORCHINDUCTOR_COMPILE_THREADS=2
"$PYTHON" - <<'PY' || exit 3
import torch, triton
assert torch.cuda.is_available(), "no CUDA device"
print(torch.cuda.get_device_name(), "| torch", torch.__version__, "| triton", triton.__version__)
PY
echo "== ready after $((SECONDS - begin)) s"

warm=""
if [ "$WHAT" != tests ]; then
  timeout -k 5 "$((TESTS_SECONDS + 5))" "$PYTHON" benchmarks/gpu.py --warm --out "$OUT" >"$OUT/warm.log" 2>&1 &
  warm=$!
fi
if [ "$WHAT" != bench ]; then
  # --timeout-method=thread ends a worker that waits for the device for ever; another one goes on
  timeout -k 5 "$TESTS_SECONDS" "$PYTHON" -m pytest -m gpu -q -p no:benchmark -p no:cacheprovider -o minversion=0 \
    -n "$WORKERS" --dist worksteal --max-worker-restart 12 --timeout 75 --timeout-method=thread --tb=short \
    --show-capture=no --durations=12 --junitxml "$OUT/tests.xml" tests/gpu >"$OUT/tests.log" 2>&1
  echo "== tests: exit $? after $((SECONDS - begin)) s (124 = out of time)"
  grep -E "^(FAILED|ERROR)|passed|failed|crashed|no tests ran" "$OUT/tests.log" | cut -c1-260 | tail -45
  "$PYTHON" - "$OUT" <<'PY'
import re, sys, pathlib
text = pathlib.Path(sys.argv[1], "tests.log").read_text(errors="replace")
lines = [line for line in text.splitlines() if re.match(r"E   +\S", line)]
print("\n".join(line[:330] for line in list(dict.fromkeys(lines))[:40]))
PY
fi
if [ -n "$warm" ]; then
  wait "$warm"
  echo "== compiled for the benchmarks: exit $? after $((SECONDS - begin)) s"
  timeout -k 5 "$BENCH_SECONDS" "$PYTHON" benchmarks/gpu.py --seconds "$((BENCH_SECONDS - 6))" --out "$OUT" \
    2>&1 | tee "$OUT/bench.log" | tail -90
fi
echo "== done after $((SECONDS - begin)) s; results in $OUT"
rm -rf "$SITE"
