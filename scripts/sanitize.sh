#!/usr/bin/env bash
# One clang build with address and undefined-behaviour sanitizers in build-asan/: every test but those of whole real models,
# which take minutes there, then each fuzz target for a short while.
#   sanitize.sh [SECONDS PER FUZZ TARGET, default 20]
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-20}
scripts/install-deps.sh test clang
cmake --preset asan >/dev/null
cmake --build build-asan
# Freed memory stays resident for a while under the address sanitizer.
export KVASIR_LOAD_SLACK_MIB=${KVASIR_LOAD_SLACK_MIB:-512}
ctest --test-dir build-asan --output-on-failure -j "$(nproc)" -E 'RealModel|SmolLm2|smollm2|process\.(gates|tasks)_test'
targets=$(scripts/fuzz.sh --list build-asan)
[ -n "$targets" ] || { echo "sanitize.sh: build-asan has no fuzz targets" >&2; exit 1; }
for target in $targets; do
  scripts/fuzz.sh --build build-asan "$target" "$seconds"
done
