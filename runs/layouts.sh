#!/usr/bin/env bash
# The way from a folder to a clip of one's own model (docs/data.md), walked on the procedural world in all four public layouts: a few pictures
# and two steps each, so that it says whether the way is open, not what one can reach on it. Minutes on two cores.
#
#     runs/layouts.sh [OUT] [LAYOUT ...]
#
# Running it again goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-run/layouts} scd=.venv/bin/scd size=${SIZE:-64}
shift || true
layouts=${*:-tiktok ubc vitonhd dresscode}

for layout in $layouts; do
    data=$out/$layout/data manifest=$out/$layout/data.jsonl run=$out/$layout/run
    [ -d "$data" ] || $scd world "$data" --layout "$layout" --num 3 --test 2 --size 160 --frames 40
    $scd data prepare "$layout" "$data" -o "$manifest" --size $size --workers 2
    $scd data check "$manifest" --size $size --strict
    $scd data preview "$manifest" --size $size -o "$out/$layout/preview.png" --num 3 --force
    $scd data encode "$manifest" --size $size -o "$out/$layout/latents"
    $scd data bench "$manifest" --size $size --num 8 --workers 2

    [ -d "$out/$layout/model" ] ||
        $scd train world-pictures --data "$manifest" --data.latents "$out/$layout/latents" --init embedded --run "$run" \
            --data.size $size --data.no-augment --data.groups 2 --data.targets 2 --lr 1e-4 --steps 2 --sample-pictures 2
    case $layout in
    vitonhd | dresscode) $scd evaluate "$layout" "$manifest" --model "$run/model" --size ${size}x$size --unpaired --limit 2 ;;
    ubc) $scd evaluate ubc "$manifest" --model "$run/model" --frames 8 --out "$out/$layout/held-out" --force ;;
    *) $scd evaluate world --num 2 --model "$run/model" ;;
    esac
    $scd export "$run" "$out/$layout/model" --force
    $scd animate examples/reference.png examples/pose.png --model "$out/$layout/model" -o "$out/$layout/animated.png" --force
done
