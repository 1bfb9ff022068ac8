"""The training set that a run's settings name."""

from __future__ import annotations

from scd.config import DRESSED, TRYON, TrainConfig
from scd.data.mixed import Mixed, pairs_config
from scd.data.real import RealPictures, open_real
from scd.data.tryon_pictures import TryOnPictures, open_tryon
from scd.data.world import FIRST_TRAINING_SEED, WorldClips, WorldPictures
from scd.data.world_tryon import WorldTryOn


def make_dataset(config: TrainConfig, length: int) -> WorldPictures | RealPictures | TryOnPictures | Mixed:
    """What a run sees: `length` samples, each a function of its index."""
    data = config.data
    if data.is_tryon:
        return open_tryon(data, length, config.seed, config.overfit)
    if data.kind != "world":
        clips = open_real(data, length, config.seed, config.overfit, heads=config.head_weight != 1)
        if not data.tryon:
            return clips
        pairs = open_tryon(pairs_config(data), length, config.seed, config.overfit)
        return Mixed(clips, pairs, data.tasks[TRYON], data.groups, config.seed)
    options = {
        "references": data.references, "group": data.groups, "augment": data.augment, "reuse": data.reuse,
        "first_seed": FIRST_TRAINING_SEED * (1 + config.seed), "repeat": config.overfit or None,
        "apart": max(data.workers, 1), "heads": config.head_weight != 1, "exact": data.exact,
        "moving": data.moving,
    }  # fmt: skip
    if data.frames > 1:
        return WorldClips(length, data.size, data.frames, data.strides, **options)
    if data.tasks[TRYON] or data.tasks[DRESSED]:
        return WorldTryOn(length, data.size, data.targets, data.garments, data.tasks, **options)
    return WorldPictures(length, data.size, data.targets, **options)
