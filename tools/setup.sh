#!/usr/bin/env bash
# Prepares this machine for the build: Debian/Ubuntu packages, and a .venv with the pinned wheels
# (including LibTorch). Idempotent: when nothing is missing it takes a second and changes nothing.
# Changes nothing outside the checkout except through apt.
#   tools/setup.sh            what building and running needs
#   tools/setup.sh --tests    as well: Slurm, for the tests of slurm/; clang, lld and Chromium, for
#                             that of the page; libFuzzer, for hostile files; faketime, for clocks
#                             that jump
#   tools/setup.sh --wheels   only .venv, where compilers and libraries come from elsewhere
#                             (modules, Spack, Conda)
set -euo pipefail
unset CDPATH PYTHONPATH PYTHONHOME
cd "$(dirname "$0")/.."

packages=(build-essential cmake ninja-build ccache git python3 python3-venv
  openmpi-bin libopenmpi-dev libhdf5-dev libboost-program-options-dev libyaml-cpp-dev
  nlohmann-json3-dev libssl-dev libgtest-dev)
case ${1:-} in
  '' | --tests | --wheels) ;;
  *)
    echo "setup: unknown option $1; there are --tests and --wheels" >&2
    exit 64
    ;;
esac
if [[ ${1:-} == --tests ]]; then
  packages+=(slurm-wlm munge iproute2 clang lld libclang-rt-dev chromium faketime)
fi

if [[ ${1:-} == --wheels ]]; then
  :
elif command -v dpkg-query >/dev/null; then
  installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null |
    awk '$2 == "installed" {print $1}' || true)
  missing=()
  for package in "${packages[@]}"; do
    grep -qx "$package" <<<"$installed" || missing+=("$package")
  done
  if ((${#missing[@]})); then
    if ((EUID == 0)); then
      as_root=()
    elif sudo -n true 2>/dev/null || { [[ -t 0 ]] && command -v sudo >/dev/null; }; then
      as_root=(sudo)
    else
      echo "setup: these packages are missing and this user may not install them." \
        "Ask an administrator for:" >&2
      echo "  sudo apt-get install ${missing[*]}" >&2
      exit 1
    fi
    echo "setup: installing ${#missing[@]} packages: ${missing[*]}"
    mkdir -p build
    if ! { "${as_root[@]}" apt-get update -q &&
      "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${missing[@]}"; } \
      >build/setup_apt.log 2>&1; then
      tail -n 15 build/setup_apt.log >&2
      echo "setup: apt-get failed; the full output is in build/setup_apt.log" >&2
      exit 1
    fi
  fi
else
  missing=()
  for tool in c++ cmake ninja mpicxx mpirun python3; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  if ((${#missing[@]})); then
    echo "setup: no apt here; make these available first (modules, a package manager):" \
      "${missing[*]}" >&2
    echo "setup: libraries needed as well: HDF5 (C, serial), Boost.Program_options, yaml-cpp," \
      "nlohmann-json, OpenSSL, GoogleTest" >&2
    exit 1
  fi
fi

stamp=.venv/.requirements
if ! cmp -s requirements.txt "$stamp"; then
  free=$(df -P -k . | awk 'NR == 2 {print int($4 / 1024 / 1024)}')
  if [[ ! -d .venv ]] && ((free < 10)); then
    echo "setup: .venv and the build take 10 GB, of which $free are free in $PWD: make room, or" \
      "clone to another disk" >&2
    exit 1
  fi
  echo "setup: installing the Python wheels into .venv (LibTorch is about 5 GB unpacked;" \
    "the download takes minutes)"
  [[ -x .venv/bin/pip ]] || python3 -m venv --clear .venv
  # Keep the user's pip settings that say where packages come from, not those that would install
  # them elsewhere.
  for name in "${!PIP_@}"; do
    case $name in
      PIP_INDEX_URL | PIP_EXTRA_INDEX_URL | PIP_FIND_LINKS | PIP_NO_INDEX) ;;
      PIP_TRUSTED_HOST | PIP_CERT | PIP_CLIENT_CERT | PIP_PROXY) ;;
      PIP_CONFIG_FILE | PIP_KEYRING_PROVIDER | PIP_CACHE_DIR | PIP_NO_CACHE_DIR) ;;
      PIP_TIMEOUT | PIP_DEFAULT_TIMEOUT | PIP_RETRIES) ;;
      *) unset "$name" ;;
    esac
  done
  .venv/bin/python -I -m pip install --no-user --quiet --disable-pip-version-check \
    -r requirements.txt
  cp requirements.txt "$stamp"
fi
echo "setup: ready"
