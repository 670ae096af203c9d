#!/usr/bin/env bash
# One clang build with address and undefined-behaviour sanitizers in build-asan/: unit tests, then each fuzz target for a
# short while.
#   sanitize.sh [SECONDS PER FUZZ TARGET, default 20]
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-20}
scripts/install-deps.sh test clang
cmake --preset asan >/dev/null
cmake --build build-asan
ctest --test-dir build-asan --output-on-failure -j "$(nproc)"
for target in $(scripts/fuzz.sh --list build-asan); do
  scripts/fuzz.sh --build build-asan "$target" "$seconds"
done
