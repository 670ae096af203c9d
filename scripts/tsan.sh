#!/usr/bin/env bash
# Unit tests of the rooms that use threads, built with clang's thread sanitizer in build-tsan/.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-deps.sh test clang
cmake --preset tsan >/dev/null
cmake --build build-tsan --target base_test kernels_test kv_test policy_test engine_test server_test
ctest --test-dir build-tsan --output-on-failure -R '^(base|kernels|kv|policy|engine|server)\.' "$@"
