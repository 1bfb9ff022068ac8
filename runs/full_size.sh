#!/usr/bin/env bash
# Every stage and every `--memory` preset at Stable Diffusion 1.5's full size, on weights of the true shape with random
# values, at a tiny resolution: two steps, export, a picture or a clip from what was exported. It says that each runs,
# fits and is read again; not what it learns, nor its peak memory (`sd15_check.py`). 23 GiB of memory, 30 GB of disk.
#
#     runs/full_size.sh [OUT] [CASE ...]        # a case: STAGE-GIGABYTES, as below; motion needs pictures before it
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-run/full-size} scd=.venv/bin/scd size=64
shift || true
cases=${*:-pictures-12 pictures-24 motion-24 tryon-12 tryon-24 pictures-80 motion-80 tryon-80}
sd=$out/sd15 clip=$out/clip adapter=$out/adapter viton=$out/viton

[ -d "$adapter" ] || .venv/bin/python runs/sd15_folder.py "$sd" "$clip" --aged --motion "$adapter"
[ -d "$viton" ] || $scd world "$viton" --tryon 4 --test 2 --size 128

for case in $cases; do
    run=$out/run model=$out/${case%-*} gigabytes=${case#*-}
    rm -rf "$run" "$model"
    start=(--init "$sd" --image-encoder "$clip")
    few=(--memory "$gigabytes" --run "$run" --data.size $size --data.workers 0
        --accumulation 1 --ema-decay 0 --sample-pictures 0 --log-every 1 --warmup 1 --lr 1e-5 --steps 2)
    echo "== $case"
    case $case in
    pictures-*) $scd train sd15-pictures "${start[@]}" "${few[@]}" ;;
    motion-*) $scd train sd15-motion --init "$out/pictures" "${few[@]}" --motion-adapter "$adapter" ;;
    tryon-*) $scd train vitonhd --data.root "$viton" "${start[@]}" "${few[@]}" ;;
    esac
    grep -h '"loss"' "$run/log.jsonl"
    $scd export "$run" "$model" --force
    case $case in
    pictures-*) $scd animate examples/reference.png examples/pose.png --model "$model" --size $size --steps 1 -o "$out/$case.png" --force ;;
    motion-*) $scd animate examples/reference.png examples/dance.mp4 --model "$model" --size $size --steps 1 --max-frames 16 -o "$out/$case.mp4" --force ;;
    tryon-*) $scd tryon "$viton/test/image/$(ls "$viton/test/image" | head -1)" "$viton/test/cloth/$(ls "$viton/test/cloth" | head -1)" \
        --category upper --model "$model" --size $size --steps 1 -o "$out/$case.png" --force ;;
    esac
done
rm -rf "$out/run"
