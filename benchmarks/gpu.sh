#!/bin/bash
# All that needs a GPU, training first.
#   benchmarks/gpu.sh train FREE PHOTOS OUT [MINUTES] [--set NAME=VALUE ...]
#   benchmarks/gpu.sh measure PHOTOS TEST OUT
# `train` makes the default prior: stage 1 on FREE (photos under free licences), stage 2 from there
# on PHOTOS as well, MINUTES each (default 10); the last checkpoints and the packed sets are in OUT.
# `measure` runs the GPU tests, the speed ratios and the samplers on photos. Each part stops after
# ten minutes; the same command resumes it.
set -euo pipefail
cd "$(dirname "$0")/.."
what=$1
if [ "$what" = train ]; then
  free=$2 photos=$3 out=$4 minutes=${5:-10}
  shift $(($# < 5 ? $# : 5))
  common=(--crop 128 --batch 64 --lr 1e-3 --optimizer muon --dtype bfloat16 --compile --workers 8
          --set holes=true --device cuda --no-preview -q)
  for stage in free all; do
    run=$out/$stage
    if [ "$stage" = free ]; then data=("$free"); start=(); else
      data=("$free" "$photos"); start=(--init "$out/free"); fi
    if compgen -G "$run/step-*" > /dev/null; then start=(--resume); fi
    python3 -m genprior train ddpm "${data[@]}" -o "$run" --time "${minutes}m" "${common[@]}" \
      "$@" "${start[@]}"
    python3 -m genprior priors pack "$run" "$out/packed-$stage"
  done
  exit
fi
photos=$2 test=$3 out=$4
mkdir -p "$out"
# one process, without pytest-xdist
python3 -m pytest -q -o addopts= -m gpu | tee "$out/tests.log"
python3 benchmarks/speed.py --device cuda | tee "$out/speed.json"
for name in points samples solvers large large_samples; do
  timeout 10m python3 benchmarks/photo_samplers.py "$name" "$test" -o "$out/$name" --device cuda \
    --dtype bfloat16 --compile --batch 68 --tune "$photos" --tune-count 3 -q \
    || echo "$name did not finish: exit code $?"
done
