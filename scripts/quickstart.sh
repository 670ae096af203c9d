#!/usr/bin/env bash
# From a fresh clone to a long document answered inside a byte budget: installs what is missing, builds a release in
# build/, fetches the default model and prints the table (scripts/quickstart.py).
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-deps.sh
cmake --preset release >/dev/null
cmake --build build --target kvasir
scripts/get-model.sh
python3 scripts/quickstart.py "$@"
