#!/usr/bin/env bash
# Makes a bare Debian 12 ready to build ektm: Debian packages, and a Python environment in .venv whose wheels bring libtorch and
# Arrow C++. Does only what is missing, so it may be called again at any time.
#   scripts/setup.sh          what building and running need
#   scripts/setup.sh --test   and what the tests need
# PYTHON=/path/to/python3 chooses the interpreter (3.10 or newer). The default torch wheel carries CUDA and is large; PIP_EXTRA_INDEX_URL
# pointing at an index of CPU wheels, as pip reads it, gives the small one.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

current_step="reading the options"
trap 'echo "failed in step: $current_step" >&2' ERR
step() { current_step="$1"; echo "==> $1"; }
stop() { echo "$1" >&2; return 1; }

requirements=python/requirements.txt
case "${1-}" in
  "") ;;
  --test) requirements=python/requirements-test.txt ;;
  *) stop "setup.sh: unknown option '$1'; expected nothing or --test" ;;
esac

packages=(ca-certificates git g++ cmake ninja-build ccache python3 python3-venv libyaml-cpp-dev libcli11-dev libspdlog-dev
          libfmt-dev nlohmann-json3-dev libgtest-dev libgmock-dev libbenchmark-dev librapidcheck-dev libxxhash-dev
          libmimalloc-dev)

step "Debian packages"
command -v dpkg-query >/dev/null ||
  stop "This is no Debian system. Install the counterparts of: ${packages[*]}"
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "    installing: ${missing[*]}"
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || stop "Run as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

step "Python environment (.venv)"
usable() { "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }
if ! { [ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1; }; then
  chosen=""
  for candidate in ${PYTHON:-python3.11 python3 /usr/bin/python3}; do
    if usable "$candidate"; then chosen="$candidate"; break; fi
  done
  [ -n "$chosen" ] ||
    stop "No usable Python: expected 3.10 or newer with the modules venv and ensurepip. Set PYTHON=/path/to/python3."
  echo "    with $("$chosen" --version)"
  "$chosen" -m venv --clear .venv
fi

step "Python packages ($requirements)"
# True when every pinned version is there; a local part such as +cpu does not matter.
satisfied() {
  .venv/bin/python - "$1" <<'PYTHON'
import importlib.metadata, pathlib, sys

def pins(path):
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            yield from pins(path.parent / line[3:].strip())
        elif line:
            yield line.split("==")

for name, version in pins(pathlib.Path(sys.argv[1])):
    try:
        found = importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found != version:
        sys.exit(1)
PYTHON
}
if ! satisfied "$requirements"; then
  pip_install() { .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }
  pip_install -r "$requirements"
fi
satisfied "$requirements" ||
  stop "pip ended well, but .venv does not hold the versions of $requirements. Remove .venv and try again."

current_step="done"
echo "==> ready"
