#!/usr/bin/env bash
# The embedded model from nothing, in three stages, on two CPU cores (7 to 13 targets a second where they compute bfloat16). Running it again
# resumes where it stopped; a stage that is done is left out. The card beside the shipped weights lists the stages that were really run.
set -euo pipefail
cd "$(dirname "$0")/.."
pictures=run/world-pictures joint=run/world-joint motion=run/world-motion scd=.venv/bin/scd

# People, then people and garments in one network, then its motion modules
[ -d $joint ] || $scd train world-pictures --run $pictures --steps 6300 --cooldown 400 --head-weight 4 "$@"
[ -d $motion ] || $scd train world-joint --init $pictures/model --run $joint --data.tasks 0.6 0.27 0.13 --lr 6e-4 \
    --ema-decay 0.998 --steps 2500 --cooldown 500
$scd train world-motion --init $joint/model --run $motion --steps 1000 --cooldown 350 --lr 8e-4 --change-weight 0

$scd evaluate world --num 64 --model $motion/model --sheet $motion/held-out.png --force
$scd evaluate world-tryon --model $motion/model --sheet $motion/try-on.png --force
$scd evaluate world-video --model $motion/model --sheet $motion/clips.png --force
