#!/usr/bin/env bash
# The embedded model from nothing, on two CPU cores (bfloat16 matrix units help: about 20 targets a second with them).
# Running it again resumes where it stopped. The card beside the shipped weights lists the stages that were really run.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/scd train world-pictures --run run/world-pictures "$@"
.venv/bin/scd evaluate world --num 64 --model run/world-pictures/model --sheet run/world-pictures/held-out.png
