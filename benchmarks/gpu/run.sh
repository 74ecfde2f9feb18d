#!/usr/bin/env bash
# Probes a GPU, runs the tests that need one, and runs MELODI before a real server on it.
#
#   benchmarks/gpu/run.sh OUT [--only "probe tests end_to_end"] [--wheels DIR] [--probe JSON] [--cpu]
#
# Each stage has a limit of its own, and what it found is in OUT whatever becomes of it or the
# next. --cpu tries all of it out with scripted power where there is no GPU. PYTHON chooses the
# interpreter, ENGINE_PYTHON the one that has torch and transformers where that is another.
set -u

# stage NAME SECONDS COMMAND...: run it within its limit; its log and its end are kept.
stage() {
    local name=$1 seconds=$2 began=$SECONDS rc
    shift 2
    case " $stages " in *" $name "*) ;; *) return ;; esac
    echo "== $name (at most $seconds s)"
    (
        [ -f "$scratch/stub.sh" ] && [ "$name" != end_to_end ] && . "$scratch/stub.sh"
        exec timeout --signal=INT --kill-after=20 "$seconds" "$@"
    ) 2>&1 | tee "$out/$name.log"
    rc=${PIPESTATUS[0]}
    [ "$rc" = 0 ] || failed=1
    echo "$name: exit $rc after $((SECONDS - began)) s" | tee -a "$out/summary.txt"
}

# The environment in which NVML finds a scripted card, whose power rises and falls and grows.
write_stub() {
    "$python" - "$scratch" > "$scratch/stub.sh" <<'PYTHON'
import sys
import time
from pathlib import Path

sys.path.insert(0, "tests/support")
from nvml_stub import compile_stub, in_real_time

script = [(k / 2, 100 + k / 4 + 50 * (k % 2)) for k in range(2000)]
found = in_real_time(compile_stub(Path(sys.argv[1])), script, origin_ns=time.monotonic_ns())
print("\n".join(f'export {name}="{value}"' for name, value in found.items()))
PYTHON
}

main() {
    local stages="probe tests end_to_end" wheels="" probe="" cpu="" load=cuda failed=0
    local out scratch python=${PYTHON:-python3}
    local engine=${ENGINE_PYTHON:-$python}
    out=$(realpath -m "${1:?say where to write: benchmarks/gpu/run.sh OUT}")
    shift
    while [ $# -gt 0 ]; do
        case $1 in
            --only) stages=$2; shift 2 ;;
            --wheels) wheels=$(realpath "$2"); shift 2 ;;
            --probe) probe=$(realpath "$2"); shift 2 ;;
            --cpu) cpu=1 load=cpu; shift ;;
            *) echo "run.sh: $1 is no option; see its first lines" >&2; exit 2 ;;
        esac
    done
    cd "$(dirname "$0")/../.." || exit 2
    mkdir -p "$out"
    scratch=$(mktemp -d)
    trap "rm -rf '$scratch'" EXIT
    export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
    if [ -n "$wheels" ]; then
        "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
            --target "$scratch/site" "$wheels"/*.whl || exit 1
        export PYTHONPATH=$scratch/site:$PYTHONPATH
    fi
    if [ -n "$cpu" ]; then write_stub || exit 1; fi

    stage probe 260 "$python" -m benchmarks.gpu.probe --out "$out" --load $load --limit 240 \
        --python "$engine"
    if [ -z "$probe" ] && [ -f "$out/probe.json" ]; then probe=$out/probe.json; fi
    stage tests 240 env PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 ${cpu:+GPU_TESTS_LOAD=cpu} \
        ENGINE_PYTHON="$engine" "$python" -m pytest -p pytest_asyncio.plugin -p pytest_timeout \
        -p no:cacheprovider -m gpu tests/gpu
    stage end_to_end 570 "$python" -m benchmarks.gpu.end_to_end --out "$out" --limit 545 \
        --engine-python "$engine" ${probe:+--probe "$probe"} ${cpu:+--cpu}
    exit $failed
}

main "$@"
