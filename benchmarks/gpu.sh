#!/usr/bin/env bash
# All that has to run on a GPU, in one command of about eight minutes:
#
#   benchmarks/gpu.sh WHEELS OUT
#
# WHEELS is a folder with wheels of what is missing beside Python, torch, Triton and pytest (pydantic, pydantic-core,
# typing-inspection, click, ruamel.yaml, networkx, pluggy, rich, safetensors, Pillow, scikit-image, hypothesis), OUT a
# folder for what is measured: log.txt, tests.txt, kernels.json, training.json, table_gpu.json. What fails is said,
# and the rest goes on. Nothing is installed outside of a temporary folder.
set -u
cd "$(dirname "$0")/.."
wheels=$1
mkdir -p "$2"
out=$(cd "$2" && pwd)
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
export PYTHONPATH=$site PYTHONUNBUFFERED=1 GRAPHNET_CACHE=$site/cache TORCHINDUCTOR_CACHE_DIR=$site/inductor
failed=0

part() {  # part NAME SECONDS COMMAND...: run it, at most so long, and go on whatever becomes of it
    local name=$1 limit=$2 started=$SECONDS
    shift 2
    echo "== $name" | tee -a "$out/log.txt"
    timeout "$limit" "$@" >"$out/$name.txt" 2>&1
    local status=$?
    [ $status -eq 0 ] || failed=1
    tail -n 12 "$out/$name.txt" | tee -a "$out/log.txt"
    echo "== $name: status $status after $((SECONDS - started)) s" | tee -a "$out/log.txt"
}

: >"$out/log.txt"
if compgen -G "$wheels/*.whl" >/dev/null; then
    $python -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl || exit 2
fi
for project in . plugins/graphnet-denoise plugins/graphnet-triton; do
    $python -m pip install --quiet --no-index --no-deps --no-build-isolation --no-compile --target "$site" \
        --upgrade "$project" || exit 2
done
$python -m graphnet plugins | tee -a "$out/log.txt"

part tests 150 $python -m pytest -q -p no:cacheprovider -k cuda tests -m "not slow"
part tests-triton 60 $python -m pytest -q -p no:cacheprovider plugins/graphnet-triton/tests/test_operators.py
part kernels 60 $python -m benchmarks.gpu kernels --json "$out/kernels.json"
part training 90 $python -m benchmarks.gpu training --json "$out/training.json"
part table 240 $python -m benchmarks --device cuda --seconds 2 --json "$out/table_gpu.json" \
    --rows a32-train-fp32,a32-train-bf16,e-train-bf16,f-train-bf16,f24mp-infer-bf16
if command -v compute-sanitizer >/dev/null; then
    part sanitizer 60 compute-sanitizer --error-exitcode 1 $python -m pytest -q -p no:cacheprovider \
        plugins/graphnet-triton/tests/test_operators.py -k "70 or mse or gate"
else
    echo "== sanitizer: there is no compute-sanitizer here" | tee -a "$out/log.txt"
fi
exit $failed
