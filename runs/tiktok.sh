#!/usr/bin/env bash
# TikTok's dances in two stages, from Stable Diffusion 1.5: METHOD's recipe with the presets' numbers (docs/training.md, docs/data.md).
# Nobody has run it to its end yet. --dry-run says 22 GiB for stage 1 (11 with --learn attention), 18 for stage 2; weights: docs/weights.md.
#
#     runs/tiktok.sh DATA sd15/ clip-vit-large-patch14/ animatediff-motion-adapter-v1-5-2/
#
# Weights are hub ids, or paths from the repository's folder. Running it again goes on where it stopped.
set -euo pipefail
data=$(realpath "${1:?DATA, the folder of the dataset}")
cd "$(dirname "$0")/.."
sd15=${2:?a folder of Stable Diffusion 1.5} clip=${3:?a folder of CLIP ViT-L/14}
motion=${4:?a folder of a motion adapter} run=run/tiktok scd=.venv/bin/scd

$scd data prepare tiktok "$data" -o $run/data.jsonl
$scd data preview $run/data.jsonl -o $run/preview.png --force

# Stage 1: pictures. A stage 2 that has begun means that stage 1 is done.
[ -d $run/stage2 ] ||
    $scd train tiktok-stage1 --data $run/data.jsonl --data.latents $run/latents \
        --init "$sd15" --image-encoder "$clip" --run $run/stage1

# Stage 2: clips, temporal layers alone
$scd train tiktok-stage2 --data $run/data.jsonl --data.latents $run/latents \
    --init $run/stage1/model --motion-adapter "$motion" --run $run/stage2

# The ten clips that were held out
$scd evaluate tiktok $run/data.jsonl --model $run/stage2/model --out $run/held-out --force
