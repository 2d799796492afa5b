#!/usr/bin/env bash
# All that has to run on a GPU, in one command that ends within seven and a half minutes:
#
#   benchmarks/gpu.sh WHEELS OUT [SECTION...]
#
# WHEELS is a folder with wheels of what that machine lacks. If it has torch, Triton, pytest with xdist,
# hypothesis, networkx, pluggy, click, rich, numpy, safetensors, Pillow and scikit-image, these are pydantic,
# pydantic-core, annotated-types, typing-inspection, ruamel.yaml, platformdirs, xxhash and filelock.
#
# The sections run in this order, or only those that are named:
#   tests      the tests on CUDA                                     tests.txt
#   a32        the paper's network, training step                    table_a32.json
#   training   an epoch of 50,000 pairs, and the speedrun            training.json
#   e          DnCNN-17, training step                               table_e.json
#   f          the residual U-Net, training step                     table_f.json
#   f24mp      an image of 24 megapixels                             table_f24mp.json
#   kernels    each layer of the paper's network                     kernels.json
#   sanitizer  compute-sanitizer, if the machine has it
# Each section writes its file into OUT while it runs, and log.txt gets everything. A section that fails or
# takes too long is named with the reason, and the others run in the time that is left. The last lines say how
# each section ended. Nothing is installed outside of a temporary folder. PYTHON, DEVICE=cpu and ALL_SECONDS
# are for trying the script itself.
set -u
cd "$(dirname "$0")/.."
wheels=$1
mkdir -p "$2"
out=$(cd "$2" && pwd)
shift 2
chosen=" ${*:-all} "
for name in "$@"; do
    case " tests a32 training e f f24mp kernels sanitizer " in
        *" $name "*) ;;
        *)
            echo "gpu.sh: there is no section '$name': see the first lines of this script" >&2
            exit 2
            ;;
    esac
done
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
seconds=${ALL_SECONDS:-425}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
export PYTHONPATH=$site PYTHONUNBUFFERED=1 GRAPHNET_CACHE=$site/cache TORCHINDUCTOR_CACHE_DIR=$site/inductor
export TRITON_CACHE_DIR=$site/triton
failed=0
ended=()
log=$out/log.txt
: >"$log"

say() { echo "$*" | tee -a "$log"; }
wanted() { [[ $chosen == " all " || $chosen == *" $1 "* ]]; }

part() {  # part NAME SECONDS COMMAND...: run it, at most so long, and go on whatever becomes of it
    local name=$1 limit=$2 left=$((seconds - SECONDS)) started=$SECONDS
    shift 2
    [ "$limit" -le "$left" ] || limit=$left
    if [ "$limit" -lt 5 ]; then
        failed=1
        ended+=("$name: did not run, no time was left")
        return
    fi
    say "== $name, at most $limit s"
    # An interrupted section says how far it got; a shell in the background would have it ignore the signal.
    timeout -s INT -k 5 "$limit" env --default-signal=INT "$@" >"$site/part.txt" 2>&1
    local status=$?
    cat "$site/part.txt" >>"$log"
    tail -n 12 "$site/part.txt"
    if [ $status -eq 0 ]; then
        ended+=("$name: ended after $((SECONDS - started)) s")
    elif [ $status -eq 124 ] || [ $status -eq 137 ]; then
        failed=1
        ended+=("$name: stopped after $limit s; it got to: $(last)")
    else
        failed=1
        ended+=("$name: failed with status $status: $(last)")
    fi
    say "== ${ended[-1]}"
}
last() { grep -v '^[[:space:]]*$' "$site/part.txt" | tail -n 1 | cut -c 1-300; }

pip() { $python -m pip install --quiet --no-index --no-deps --no-compile --target "$site" --upgrade "$@"; }
tests() {  # tests NAME SECONDS ARGUMENTS...
    part "$1" "$2" $python -m pytest -n 8 -vv --tb=short -p no:cacheprovider -o filterwarnings=default "${@:3}"
    cat "$site/part.txt" >>"$out/tests.txt"
}
rows() {  # rows NAME SECONDS BUILDING ROWS
    wanted "$1" || return 0
    part "$1" "$2" $python -m benchmarks --device "$device" --building "$3" --rows "$4" \
        --json "$out/table_$1.json"
}
numbers() {  # numbers NAME SECONDS
    wanted "$1" || return 0
    part "$1" "$2" $python -m benchmarks.gpu "$1" --device "$device" --json "$out/$1.json"
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
say "installed after $SECONDS s"
$python -m graphnet plugins 2>&1 | tee -a "$log"
# Triton needs a compiler, Python's headers and libcuda: the first message says which of them is missing.
$python -c 'from triton.runtime import driver as d; print(d.active.utils.get_device_properties(0))' 2>&1 |
    tail -n 3 | tee -a "$log"

if wanted tests; then
    : >"$out/tests.txt"
    # These three import packages that the machine lacks: jsonschema, playwright, expecttest.
    absent=(--ignore tests/docs/test_docs.py --ignore tests/inspection/test_page.py --ignore tests/builtin/layers/test_opinfo.py)
    tests tests-triton 50 plugins/graphnet-triton/tests/test_operators.py plugins/graphnet-triton/tests/test_updates.py
    tests tests-core 65 --continue-on-collection-errors "${absent[@]}" -k "$device" -m "not slow" tests
fi
rows a32 80 35 a32-train-bf16,a32-train-fp32
numbers training 40
rows e 60 30 e-train-bf16
rows f 70 40 f-train-bf16
rows f24mp 35 15 f24mp-infer-bf16
numbers kernels 40
if wanted sanitizer && ! command -v compute-sanitizer >/dev/null; then
    ended+=("sanitizer: did not run, the machine has no compute-sanitizer")
elif wanted sanitizer; then
    part sanitizer 60 compute-sanitizer --error-exitcode 1 $python -m pytest -q -p no:cacheprovider \
        plugins/graphnet-triton/tests/test_operators.py plugins/graphnet-triton/tests/test_updates.py \
        -k "70x20x9 or hourglass or mse or gate or launches or first_moment"
fi
say "== how the sections ended"
for line in "${ended[@]}"; do
    say "$line"
done
exit $failed
