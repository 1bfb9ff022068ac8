#!/usr/bin/env bash
# The embedded model from nothing, in two stages, on two CPU cores (10 to 15 targets a second; the shipped one had 126,000 pictures and
# 16,000 frames of clips). Running it again resumes where it stopped; a stage that is done is left out. The card beside the shipped weights
# lists the stages that were really run.
set -euo pipefail
cd "$(dirname "$0")/.."
pictures=run/world-pictures motion=run/world-motion
[ -d $motion ] || .venv/bin/scd train world-pictures --run $pictures --steps 6300 --cooldown 400 --head-weight 4 "$@"
.venv/bin/scd train world-motion --init $pictures/model --run $motion --steps 1000 --cooldown 350 --lr 8e-4
.venv/bin/scd evaluate world --num 64 --model $motion/model --sheet $motion/held-out.png --force
.venv/bin/scd evaluate world-video --model $motion/model --sheet $motion/clips.png --force
