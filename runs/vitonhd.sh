#!/usr/bin/env bash
# Try-on on VITON-HD's pairs, or DressCode's, from Stable Diffusion 1.5: the presets' numbers (docs/training.md, docs/data.md).
# Nobody has run it to its end yet. --dry-run says 9 GiB with bfloat16, 13 at 1024x768; weights: docs/weights.md.
#
#     runs/vitonhd.sh DATA sd15/ clip-vit-large-patch14/ [options of `scd train`]
#     KIND=dresscode SIZE=1024x768 runs/vitonhd.sh DATA sd15/ clip-vit-large-patch14/
#
# A garment has no image embedding where "" stands in place of CLIP. Attention alone learns (95 M parameters); the options that matter:
#     --learn lora --lr 1e-4               7 M parameters; RUN/lora.safetensors besides the whole model
#     --learn all                          861 M, 20 GiB
#     --data.groups 1 --accumulation 32    as many pairs in a step, the least memory
# Weights are hub ids, or paths from the repository's folder. Running it again goes on where it stopped.
set -euo pipefail
data=$(realpath "${1:?DATA, the folder of the dataset}")
cd "$(dirname "$0")/.."
sd15=${2:?a folder of Stable Diffusion 1.5} clip=${3?a folder of CLIP ViT-L/14, or \"\" for no image embedding}
shift 3
kind=${KIND:-vitonhd} size=${SIZE:-512x384} scd=.venv/bin/scd
case $size in 512x384) area=448 ;; 1024x768) area=896 ;; *) echo "SIZE=$size: 512x384 or 1024x768" >&2; exit 2 ;; esac
run=run/$kind-$size

$scd data prepare $kind "$data" -o $run/data.jsonl --size $area
$scd data preview $run/data.jsonl --size $area -o $run/preview.png --force

[ -f $run/trained ] ||
    $scd train $kind --data $run/data.jsonl --data.size $area --init "$sd15" --image-encoder "$clip" --run $run "$@"
touch $run/trained

# 2,032 test pairs of VITON-HD each; SSIM and PSNR, and with weights LPIPS, FID and KID (docs/evaluation.md)
for setting in paired unpaired; do
    $scd evaluate $kind $run/data.jsonl --model $run/model --size $size --$setting --out $run/$setting --force
done
