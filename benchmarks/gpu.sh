#!/usr/bin/env bash
# All that has to run on a GPU, in one command that ends within eight minutes:
#
#   benchmarks/gpu.sh WHEELS OUT
#
# WHEELS is a folder with wheels of what is missing there: where there are torch, Triton, pytest with xdist,
# hypothesis, networkx, pluggy, click, rich, numpy, safetensors, Pillow and scikit-image, of pydantic,
# pydantic-core, annotated-types, typing-inspection, ruamel.yaml and platformdirs. OUT gets log.txt and, as they
# are measured, training.json, kernels.json and a table_*.json for each workload: seven files. The parts run in the order of
# their weight; one that fails or takes too long is said, and the others go on with what time is left. Nothing
# is installed outside of a temporary folder. PYTHON, DEVICE=cpu and ALL_SECONDS are for trying the script itself.
set -u
cd "$(dirname "$0")/.."
wheels=$1
mkdir -p "$2"
out=$(cd "$2" && pwd)
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
seconds=${ALL_SECONDS:-475}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
export PYTHONPATH=$site PYTHONUNBUFFERED=1 GRAPHNET_CACHE=$site/cache TORCHINDUCTOR_CACHE_DIR=$site/inductor
export TRITON_CACHE_DIR=$site/triton
failed=0
log=$out/log.txt
: >"$log"

part() {  # part NAME SECONDS COMMAND...: run it, at most so long, and go on whatever becomes of it
    local name=$1 limit=$2 left=$((seconds - SECONDS)) started=$SECONDS
    shift 2
    [ "$limit" -le "$left" ] || limit=$left
    echo "== $name, at most $limit s" | tee -a "$log"
    if [ "$limit" -lt 5 ]; then
        echo "== $name: no time was left" | tee -a "$log"
        failed=1
        return
    fi
    # What is interrupted says how far it got; a shell in the background would have it ignore that.
    timeout -s INT -k 5 "$limit" env --default-signal=INT "$@" >"$site/part.txt" 2>&1
    local status=$?
    [ $status -eq 0 ] || failed=1
    cat "$site/part.txt" >>"$log"
    tail -n 12 "$site/part.txt"
    echo "== $name: status $status after $((SECONDS - started)) s" | tee -a "$log"
}

pip() { $python -m pip install --quiet --no-index --no-deps --no-compile --target "$site" --upgrade "$@"; }
tests() {  # tests NAME SECONDS ARGUMENTS...
    part "$1" "$2" $python -m pytest -n 8 -vv --tb=short -p no:cacheprovider -o filterwarnings=default "${@:3}"
}
rows() {  # rows NAME SECONDS BUILDING ROWS
    part "table_$1" "$2" $python -m benchmarks --device "$device" --building "$3" --rows "$4" \
        --json "$out/table_$1.json"
}

if compgen -G "$wheels/*.whl" >/dev/null; then
    pip "$wheels"/*.whl || exit 2
fi
for package in . plugins/graphnet-cpu plugins/graphnet-denoise plugins/graphnet-triton; do  # built elsewhere, too
    printf '[build]\nbuild_base = %s\n[egg_info]\negg_base = %s\n' "$site/build/$package" "$site/build" \
        >"$site/build.cfg"
    mkdir -p "$site/build/$package"
    DIST_EXTRA_CONFIG=$site/build.cfg pip --no-build-isolation "./$package" || exit 2
done
$python -m benchmarks.missing "$site" pytest pytest-xdist hypothesis 2>&1 | tee -a "$log"
[ "${PIPESTATUS[0]}" -eq 0 ] || exit 2
echo "installed after $SECONDS s" | tee -a "$log"
$python -m graphnet plugins 2>&1 | tee -a "$log"
# Triton needs a compiler, Python's headers and libcuda: what is missing there is said before all else.
$python -c 'from triton.runtime import driver as d; print(d.active.utils.get_device_properties(0))' 2>&1 |
    tail -n 3 | tee -a "$log"

# These three import what is not there: jsonschema, playwright, expecttest.
absent=(--ignore tests/docs/test_docs.py --ignore tests/inspection/test_page.py --ignore tests/builtin/layers/test_opinfo.py)
tests tests-triton 55 plugins/graphnet-triton/tests/test_operators.py plugins/graphnet-triton/tests/test_updates.py
tests tests 75 --continue-on-collection-errors "${absent[@]}" -k "$device" -m "not slow" tests
rows a32 95 40 a32-train-bf16,a32-train-fp32
part training 45 $python -m benchmarks.gpu training --device "$device" --json "$out/training.json"
rows e 65 30 e-train-bf16
rows f 65 30 f-train-bf16
part kernels 60 $python -m benchmarks.gpu kernels --device "$device" --json "$out/kernels.json"
rows f24mp 40 15 f24mp-infer-bf16
if command -v compute-sanitizer >/dev/null; then
    part sanitizer 60 compute-sanitizer --error-exitcode 1 $python -m pytest -q -p no:cacheprovider \
        plugins/graphnet-triton/tests/test_operators.py plugins/graphnet-triton/tests/test_updates.py \
        -k "70x20x9 or hourglass or mse or gate or launches or first_moment"
else
    echo "== sanitizer: there is no compute-sanitizer here" | tee -a "$log"
fi
exit $failed
