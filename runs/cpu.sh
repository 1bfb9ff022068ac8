#!/usr/bin/env bash
# The embedded model from nothing, on two CPU cores (10 to 15 targets a second; the shipped one had 81,000).
# Running it again resumes where it stopped. The card beside the shipped weights lists the stages that were really run.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/scd train world-pictures --run run/world-pictures --steps 4050 --cooldown 300 "$@"
.venv/bin/scd evaluate world --num 64 --model run/world-pictures/model --sheet run/world-pictures/held-out.png
