#!/usr/bin/env bash
# Installs Debian packages that are missing: those of a build, and with arguments more.
#   install-deps.sh [test] [clang]
# Uses sudo where the user is not root. Does nothing when all are there.
set -euo pipefail

packages=(g++ cmake ninja-build pkg-config python3 python3-pip git ca-certificates
  libfmt-dev libspdlog-dev nlohmann-json3-dev libpcre2-dev libutf8proc-dev
  libcpp-httplib-dev libssl-dev prometheus-cpp-dev)
for group in "$@"; do
  case $group in
    test) packages+=(libgtest-dev libgmock-dev) ;;
    clang) packages+=(clang-19 libclang-rt-19-dev llvm-19) ;;
    *) echo "install-deps.sh: unknown group '$group': test or clang" >&2; exit 2 ;;
  esac
done

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

echo "Installing: ${missing[*]}"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "install-deps.sh: not root and no sudo: install these packages yourself: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -q
"${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"
