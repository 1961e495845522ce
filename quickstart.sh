#!/usr/bin/env bash
# From nothing to a report: sets up a bare Debian 12, builds, makes or takes data, trains EKTM beside its baselines, shows the table.
#   bash quickstart.sh            on logs of the built-in simulator
#   bash quickstart.sh FOLDER     on your own: FOLDER/schema.yaml and train.*, valid.*, test.* (.csv, .csv.gz, .parquet, .arrow);
#                                 without valid.* the schema says where validation rows come from (split:)
# Results: runs/quickstart/report.html, and a run folder for each model beside it. Called again, it only does what is missing;
# FRESH=1 trains everything anew.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
current_step="start"
trap 'echo "quickstart.sh failed in step: $current_step" >&2' ERR
step() { current_step="$1"; echo; echo "==> $1"; }
# Before the folder is entered, so that a relative folder means the caller's.
folder="${1:+$(cd "$OLDPWD" 2>/dev/null && realpath "$1")}"

step "set up"
scripts/setup.sh

step "build (build/bin/ektm)"
cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release >build.log 2>&1 || { tail -n 20 build.log; exit 1; }
ninja -C build ektm
rm -f build.log
ektm=build/bin/ektm

runs=runs/quickstart
models="single_task shared_bottom mmoe ple ektm"
if [ "${FRESH:-0}" = 1 ]; then rm -rf "$runs" data/quickstart; fi
mkdir -p "$runs" data

one_file() {  # one_file train -> the file of that split, or nothing
  local file
  for file in "$folder/$1".parquet "$folder/$1".csv "$folder/$1".csv.gz "$folder/$1".arrow; do
    if [ -e "$file" ]; then echo "$file"; return; fi
  done
}

if [ -z "$folder" ]; then
  if [ ! -e data/quickstart-raw/schema.yaml ]; then
    step "simulate logs (data/quickstart-raw)"
    $ektm simulate logs --quick --output data/quickstart-raw
  fi
  folder=data/quickstart-raw
fi

if [ ! -e data/quickstart/manifest.json ]; then
  step "prepare (data/quickstart)"
  arguments=(--schema "$folder/schema.yaml")
  for split in train valid test; do
    file=$(one_file "$split")
    if [ -n "$file" ]; then arguments+=("--$split" "$file"); fi
  done
  $ektm prepare "${arguments[@]}" --output data/quickstart
fi

for model in $models; do
  if [ ! -e "$runs/$model/metrics.json" ]; then
    step "train $model ($runs/$model)"
    $ektm train "configs/simulated/$model.yaml" --set data=data/quickstart --output "$runs/$model" --overwrite
  fi
done

step "report"
# shellcheck disable=SC2086
$ektm report $(for model in $models; do echo "$runs/$model"; done) --dataset data/quickstart/summary.json --output "$runs/report.html"
echo
echo "Look at $runs/report.html. Who teaches whom: $ektm inspect $runs/ektm"
