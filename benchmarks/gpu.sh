#!/bin/bash
# All benchmarks that need a GPU: tests, speed, samplers on photos, continued training.
#   benchmarks/gpu.sh PHOTOS TEST OUT [RUN]
# PHOTOS, TEST: folders of training and of test photos. OUT: folder of the results. RUN: a training
# run to continue. Each sampler run stops after ten minutes; the same command resumes it.
set -euo pipefail
cd "$(dirname "$0")/.."
photos=$1 test=$2 out=$3 run=${4:-}
mkdir -p "$out"
# one process, without pytest-xdist
python3 -m pytest -q -o addopts= -m gpu | tee "$out/tests.log"
python3 benchmarks/speed.py --device cuda | tee "$out/speed.json"
for what in points samples solvers large large_samples; do
  timeout 10m python3 benchmarks/photo_samplers.py "$what" "$test" -o "$out/$what" --device cuda \
    --dtype bfloat16 --compile --batch 68 --tune "$photos" --tune-count 3 -q \
    || echo "$what did not finish: exit code $?"
done
if [ -n "$run" ]; then cp -r "$run" /tmp/genprior-run; set -- --resume; else set --; fi
python3 -m genprior train ddpm "$photos" -o /tmp/genprior-run --time 15m --crop 128 --batch 64 \
  --optimizer muon --device cuda -q "$@"
python3 -m genprior priors pack /tmp/genprior-run "$out/ddpm"
