#!/usr/bin/env bash
# Installs what tests need, builds, and runs every test; ends with CTest's summary.
#   test.sh [ctest arguments, for example -R kv]
# Tests of the default model run when it is in the models folder (scripts/get-model.sh), and say so when they skip.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-deps.sh test
cmake --preset "${KVASIR_PRESET:-test}" >/dev/null
cmake --build build
ctest --test-dir build --output-on-failure -j "$(nproc)" "$@"
