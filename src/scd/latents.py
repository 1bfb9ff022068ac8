"""Latents of real frames, encoded once and kept: what training writes and `scd.data.latents` reads."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from safetensors import SafetensorError
from safetensors.numpy import save_file
from torch import Tensor

from scd.data.frames import Frames
from scd.data.latents import LatentsReader, is_kept, latents_path
from scd.data.mixed import Mixed
from scd.encoders import latent_shift, signed
from scd.media.files import replacing
from scd.reference import hash_weights
from scd.types import UserError

log = logging.getLogger("scd")
AT_ONCE = 8  # frames that are encoded together: memory, not the result, depends on it
# That are read together: a video is decoded from the key frame before them, up to 250 frames back (of a clip
# of 350 frames, 8 at once decode 4,961)
READ_AT_ONCE = 32
SPOKEN = 30  # seconds between two lines of progress


def encode(pipe: Any, pictures: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Scaled latents (B, C, h, w) of pictures (B, 3, H, W) uint8, or from kept ones (B, 2 C, h, w): the mode,
    or a sample when a generator is given. Both draw the same noise."""
    pictures = pictures.to(pipe.device)
    if pictures.dtype == torch.uint8:
        return pipe.encode_pictures(signed(pictures), generator=generator)
    mean, std = pictures.to(pipe.unet.dtype).chunk(2, dim=1)
    if generator is None:
        return mean
    return mean + std * randn_tensor(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)


def with_latents(pipe: Any, dataset: Any, folder: Path) -> Any:
    """The dataset of real pictures, reading latents in place of them. Those that are not in the folder yet
    are encoded first. Raises UserError."""
    if isinstance(dataset, Mixed):
        return dataset.read_by(lambda part: with_latents(pipe, part, folder))
    if not hasattr(dataset, "items"):
        raise UserError(
            "--data.latents: for real pictures only; the world's people are drawn anew all the time"
        )
    keep_latents(pipe, dataset.items, folder)
    dataset = copy.copy(dataset)
    dataset.read = LatentsReader(folder, _stamp(pipe))
    return dataset


def keep_latents(
    pipe: Any, items: Sequence[Frames], folder: Path, advance: Callable[[], None] | None = None
) -> int:
    """Encode the shots or pairs whose latents are not in the folder yet, each file written whole, and return
    how many; `advance` is called for every item. What cannot be read is named and left. Raises UserError when
    nothing can be read, or written."""
    stamp = _stamp(pipe)
    tell = advance or (lambda: None)
    paths = {latents_path(folder, item, stamp): item for item in items}  # copies have one
    missing = {path: item for path, item in paths.items() if not is_kept(path)}
    for _ in range(len(items) - len(missing)):
        tell()
    spoken, unread = time.monotonic(), 0
    for number, (path, item) in enumerate(missing.items()):
        if advance is None and (number == 0 or time.monotonic() - spoken > SPOKEN):
            spoken = time.monotonic()
            log.info("latents: %d of %d are encoded and kept in %s", number, len(missing), folder)
        try:
            arrays = _encoded(pipe, item)
        except UserError as error:
            unread += 1
            log.warning("not encoded, %d of %d by now: %s", unread, len(missing), error)
            if unread == len(paths):
                raise
            continue
        finally:
            tell()
        with replacing(path, force=True) as temporary:
            try:
                save_file(arrays, temporary)
            except SafetensorError as error:  # a full disk, which is no OSError to it
                raise UserError(f"{path} cannot be written: {error}") from None
    return len(missing) - unread


@torch.no_grad()
def _encoded(pipe: Any, item: Frames) -> dict[str, np.ndarray]:
    """What the item's file holds; `encode_pictures` taken apart, so that nothing is encoded twice."""
    kept: dict[str, list[Tensor]] = {"latents": [], "tokens": []}
    usable = item.usable.tolist()
    read = (
        item.pictures(usable[start : start + READ_AT_ONCE]) for start in range(0, len(usable), READ_AT_ONCE)
    )
    for pictures in (part for found in read for part in torch.from_numpy(found).split(AT_ONCE)):
        pixels = signed(pictures.permute(0, 3, 1, 2).to(pipe.device))
        posterior = pipe.vae.encode(pixels.to(pipe.vae.dtype)).latent_dist
        mean, std = (posterior.mean - latent_shift(pipe.vae)), posterior.std
        latents = torch.cat([mean, std], 1) * pipe.vae.config.scaling_factor
        kept["latents"].append(latents.permute(0, 2, 3, 1))
        if pipe.image_encoder is not None:
            kept["tokens"].append(pipe.encode_context(pixels))
    return {name: torch.cat(parts).half().contiguous().cpu().numpy() for name, parts in kept.items() if parts}


def _stamp(pipe: Any) -> str:
    """Of everything that latents and tokens depend on."""
    parts = [hash_weights(part) for part in (pipe.vae, pipe.image_encoder) if part is not None]
    return " ".join([*parts, str(pipe.vae.config.scaling_factor), str(latent_shift(pipe.vae))])
