#!/usr/bin/env bash
# Everything that CI checks: build, unit tests, Python tests, layering. Ends with the line "N passed, N failed".
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

current_step="setup"
passed=0
failed=0
finish() {  # also when a step breaks off
  local status=$?
  if [ $status -ne 0 ]; then
    echo "failed in step: $current_step" >&2
    failed=$((failed + 1))
  fi
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ] || exit 1
}
trap finish EXIT
export OMP_WAIT_POLICY=PASSIVE  # several programs share the cores: threads that wait must not spin
step() { current_step="$1"; echo "==> $1"; }

# Adds the counts of a JUnit file. A skipped test counts as neither.
count() {
  local counts
  counts=$(python3 - "$1" <<'PYTHON'
import sys, xml.etree.ElementTree as tree

cases = list(tree.parse(sys.argv[1]).getroot().iter("testcase"))
failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
skipped = sum(case.find("skipped") is not None for case in cases)
print(len(cases) - failed - skipped, failed)
PYTHON
)
  passed=$((passed + ${counts% *}))
  failed=$((failed + ${counts#* }))
}

scripts/setup.sh --test

step "configure"
cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DEKTM_TESTS=ON
step "build"
cmake --build build -j "$(nproc)"

step "unit tests (ctest)"
rm -rf build/tests/*.xml build/pytest.xml
ctest --test-dir build --output-on-failure -j2 || unit_failed=1
for report in build/tests/*.xml; do count "$report"; done
# A program that crashed has left no report of its failure.
if [ "${unit_failed:-0}" = 1 ] && [ "$failed" -eq 0 ]; then failed=1; fi

step "Python tests (pytest)"
.venv/bin/pytest -q python/tests --junitxml=build/pytest.xml || true
count build/pytest.xml

step "layers and paths"
python3 scripts/check_layers.py
step "docs"
.venv/bin/python scripts/check_docs.py
