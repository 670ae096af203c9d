#!/usr/bin/env bash
# Fuzzes one parser.
#   fuzz.sh TARGET SECONDS              builds the fuzz preset and runs it, from the seeds and what earlier runs found
#   fuzz.sh --build DIR TARGET SECONDS  runs a target that is built in DIR already
#   fuzz.sh --list DIR                  targets built in DIR
# A crash leaves its input in DIR/fuzz/TARGET/found/ and fails.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build-fuzz
case ${1:-} in
  --list)
    find "$2" -name '*_fuzz' -type f -executable -printf '%f\n' | sort
    exit 0 ;;
  --build)
    build=$2
    shift 2 ;;
  *)
    scripts/install-deps.sh clang
    cmake --preset fuzz >/dev/null
    cmake --build build-fuzz --target "${1:?usage: fuzz.sh TARGET SECONDS}" ;;
esac
target=$1
seconds=${2:-60}
binary=$(find "$build" -name "$target" -type f -executable | head -n 1)
[ -n "$binary" ] || { echo "fuzz.sh: no target '$target' in $build" >&2; exit 2; }

work=$build/fuzz/$target
seeds=$build/fuzz/seeds
mkdir -p "$work/corpus" "$work/found" "$seeds/$target"
python3 tools/make_fuzz_seeds.py "$seeds"
echo "Fuzzing $target for $seconds s"
"$binary" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=256 -print_final_stats=0 \
  -verbosity=0 -artifact_prefix="$work/found/" "$work/corpus" "$seeds/$target"
