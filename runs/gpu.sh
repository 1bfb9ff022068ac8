#!/usr/bin/env bash
# The embedded model, learning on from the shipped weights on one GPU: pictures and try-on, then clips. Cut off,
# the same command goes on. With 16 processors and an H100 about 480 targets and 280 frames a second: 5 minutes
# for the pictures and 3 for the clips.
#
#     bash runs/gpu.sh run/gpu-a          # then look at its samples/, and ship it: runs/ship.py
#     STEPS=40000 FRAMES_STEPS=6000 bash runs/gpu.sh run/gpu-b --seed 8
#     INIT=run/mine/model bash runs/gpu.sh run/gpu-c     # from other weights than the shipped ones
set -euo pipefail
cd "$(dirname "$0")/.."
run=$1; shift
STEPS=${STEPS:-1200} FRAMES_STEPS=${FRAMES_STEPS:-750} WORKERS=${WORKERS:-15} INIT=${INIT:-embedded}
scd=${SCD:-.venv/bin/scd}
export OPENCV_FOR_THREADS_NUM=1 # each of many workers would start one thread a processor

# 120 targets a step. The rate falls over the last three fifths. Averages of about the last tenth. On an H100 a
# run at 1e-3 ended in a gradient that was no number (LOG.md): a lower rate, and some such steps are borne
[ -d "$run/clips" ] || "$scd" train world-joint --init "$INIT" --data.tasks 0.7 0.15 0.15 --data.groups "${GROUPS_OF_STEP:-24}" \
    --data.workers "$WORKERS" --data.reuse 6 --lr 5e-4 --ema-decay 0.999 --warmup 100 \
    --matching-weight 0.2 --data.exact 0.7 --skip-broken 20 \
    --steps "$STEPS" --cooldown $((STEPS * 3 / 5)) --save-every 200 --sample-every 10000 --run "$run/pictures" "$@"

# The rate is low and falls to zero: temporal layers that learn fast and long make clips livelier and no
# steadier (LOG.md)
"$scd" train world-motion --init "$run/pictures/model" --data.groups "${CLIPS_OF_STEP:-4}" \
    --data.workers "$WORKERS" --data.reuse 8 --data.no-augment --data.strides 1 2 --lr 2e-4 --change-weight 0 \
    --ema-decay 0.998 --warmup 20 --steps "$FRAMES_STEPS" --cooldown $((FRAMES_STEPS * 3 / 5)) \
    --save-every 200 --sample-every 10000 --run "$run/clips" "$@"
