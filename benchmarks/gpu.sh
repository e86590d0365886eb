#!/bin/bash
# Everything that wants a GPU, in one go: tests, speed, further training of the default weights.
#   benchmarks/gpu.sh PHOTOS OUT [RUN]
# PHOTOS: folder of training photos. OUT: where results go. RUN: a training run to continue.
set -euo pipefail
cd "$(dirname "$0")/.."
photos=$1 out=$2 run=${3:-}
mkdir -p "$out"
python3 -m pytest -q -m gpu | tee "$out/tests.log"
python3 benchmarks/speed.py --device cuda | tee "$out/speed.json"
if [ -n "$run" ]; then cp -r "$run" /tmp/genprior-run; set -- --resume; else set --; fi
python3 -m genprior train ddpm "$photos" -o /tmp/genprior-run --time 20m --crop 128 --batch 64 --optimizer muon \
  --device cuda -q "$@"
python3 -m genprior priors pack /tmp/genprior-run "$out/ddpm"
