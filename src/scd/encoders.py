"""Between pictures or poses and what the network reads: latents, pose features, context tokens. Shared by
training and inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scd.media.picture import to_rgb
from scd.types import Pose, UserError

DECODED_AT_ONCE = 8  # frames of a clip: memory, not the result, depends on it
AnyPicture = Image.Image | np.ndarray | Tensor  # PIL; uint8 (H, W, 3); float (3, H, W) in [0, 1]

OVERSHOOT = 0.2  # beyond [0, 1]: bicubic resizing gives so much; [-1, 1] and 0..255 are other conventions

# CLIP's own preprocessing (Radford et al. 2021): resize to 224, then these means and deviations
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Encoders:
    """The encoders of a pipeline that has `vae`, `unet`, `pose_encoder` and perhaps an `image_encoder`."""

    config: Any
    vae: Any
    unet: Any
    pose_encoder: Any
    image_encoder: Any
    vae_scale_factor: int
    _execution_device: Any

    def encode_pictures(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] -> scaled latents: the posterior's mode, or a sample when a
        generator is given."""
        distribution = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
        latents = distribution.mode() if generator is None else distribution.sample(generator)
        return ((latents - latent_shift(self.vae)) * self.vae.config.scaling_factor).to(self.unet.dtype)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """The inverse of `encode_pictures`: pictures (B, 3, H, W) in [0, 1]."""
        latents = latents / self.vae.config.scaling_factor + latent_shift(self.vae)
        return (self.vae.decode(latents.to(self.vae.dtype)).sample.float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def decode_frames(self, latents: Tensor) -> Iterator[np.ndarray]:
        """The frames of one clip, uint8 (H, W, 3), from its latents (C, T, h, w); a few are decoded at a
        time, so that a long clip can be written as it is decoded. UserError when they are no numbers."""
        for part in latents.transpose(0, 1).split(DECODED_AT_ONCE):
            pixels = self.decode_latents(part.to(self._execution_device))
            require_finite(pixels, "what the VAE decoded", self.vae.dtype)
            yield from to_bytes(pixels.permute(0, 2, 3, 1).float().cpu().numpy())

    def decode_output(self, latents: Tensor, is_clip: bool, output_type: str, canvas: Any = None):
        """Pictures (N, C, h, w) or clips (N, C, T, h, w) decoded, as `output_type` says; pictures with a
        `Canvas` are painted in its regions only."""
        if is_clip:
            # A long clip's latents live on the host, and so do its frames
            pixels = torch.stack([
                torch.cat([self.decode_latents(part.to(self._execution_device)).to(latents.device)
                           for part in clip.transpose(0, 1).split(DECODED_AT_ONCE)])
                for clip in latents
            ])  # fmt: skip
        else:
            pixels = self.decode_latents(latents)
        if canvas is not None:
            pixels = canvas.paste(pixels)
        if output_type == "pt":
            return pixels
        array = pixels.movedim(-3, -1).float().cpu().numpy()
        if output_type == "np":
            return array
        bytes_ = to_bytes(array)
        if is_clip:
            return [[Image.fromarray(frame) for frame in clip] for clip in bytes_]
        return [Image.fromarray(picture) for picture in bytes_]

    def encode_poses(self, poses: Sequence[Pose], size: tuple[int, int]) -> Tensor:
        """Drawings of the poses at (H, W), encoded: features (N, c, h, w)."""
        return self.pose_encoder(self._drawings(poses, size))

    def encode_reference_pose(self, pose: Pose | None, size: tuple[int, int]) -> Tensor | None:
        """The features (1, c, h, w) of a reference at (H, W). None, as in training (METHOD 3), without a
        pose, which is a garment's case, and where no joint of it is sure enough to be drawn."""
        if pose is None or not self.config.reference_pose:
            return None
        drawing = self._drawings([pose], size)
        return self.pose_encoder(drawing) if drawing.any() else None

    def _drawings(self, poses: Sequence[Pose], size: tuple[int, int]) -> Tensor:
        """(N, 3, H, W) in [0, 1]."""
        from scd.pose.draw import draw_pose

        style = self.config.pose_drawing
        drawings = torch.from_numpy(np.stack([draw_pose(pose, size, style=style) for pose in poses]))
        return drawings.permute(0, 3, 1, 2).to(self._execution_device, self.pose_encoder.dtype) / 255

    def encode_context(self, pixels: Tensor) -> Tensor:
        """Context tokens (B, 1, D) of pictures (B, 3, H, W) in [-1, 1]: CLIP's image embedding, or a zero
        token without an encoder."""
        if self.image_encoder is None:
            return pixels.new_zeros(
                len(pixels), 1, self.unet.config.cross_attention_dim, dtype=self.unet.dtype
            )
        side = self.image_encoder.config.image_size
        small = torch.nn.functional.interpolate(pixels.float(), (side, side), mode="bicubic", antialias=True)
        mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] for v in (_CLIP_MEAN, _CLIP_STD))
        normalised = ((small.clamp(-1, 1) / 2 + 0.5) - mean) / std
        return (
            self.image_encoder(normalised.to(self.image_encoder.dtype))
            .image_embeds[:, None]
            .to(self.unet.dtype)
        )

    def training_context(
        self, references: Tensor, owner: Sequence[int], kept: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Context rows of a joint pass: references (G, R, 3, H, W) uint8, or the tokens (G, R, 1, D) kept of
        them -> (G R, R, D) and (B, R, D).

        A target sees the tokens of all its references, a dropped one zeros. A reference sees its own token,
        repeated R times because rows of one batch have one length: equal keys and values leave attention as
        it is.
        """
        groups, num = references.shape[:2]
        if self.image_encoder is None:
            zero = torch.zeros(1, 1, self.unet.config.cross_attention_dim, device=self.unet.device)
            return zero.expand(groups * num, -1, -1), zero.expand(len(owner), -1, -1)
        with torch.no_grad():
            if kept is not None:
                tokens = kept.flatten(0, 1).to(self.unet.device, self.unet.dtype)
            else:
                pixels = signed(references.flatten(0, 1).to(self.image_encoder.device))
                tokens = self.encode_context(pixels)  # (G R, 1, D)
        of_group = tokens.reshape(groups, num, -1)
        of_target = torch.stack([of_group[g] if g >= 0 else torch.zeros_like(of_group[0]) for g in owner])
        return tokens.expand(-1, num, -1), of_target

    def _pixels(self, image: AnyPicture) -> Tensor:
        """(1, 3, H, W) in [-1, 1] on the execution device; ValueError as `as_pixels`."""
        return as_pixels(image, self.vae_scale_factor)[None].to(self._execution_device) * 2 - 1


def latent_shift(vae: Any) -> float:
    """What is taken from latents before they are scaled; most VAEs name none."""
    return getattr(vae.config, "shift_factor", None) or 0.0


def signed(pictures: Tensor) -> Tensor:
    """Bytes as a VAE reads them: float32 in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def to_bytes(pictures: np.ndarray) -> np.ndarray:
    """Float pictures in [0, 1] as uint8."""
    return np.rint(pictures * 255).astype(np.uint8)


def require_finite(values: np.ndarray | Tensor, what: str, dtype: torch.dtype) -> None:
    """UserError when what networks in `dtype` made holds what is no number."""
    finite = torch.isfinite(values) if isinstance(values, Tensor) else np.isfinite(values)
    if not finite.all():
        raise UserError(f"{what} is not a number in {dtype}: use --dtype float32 or bfloat16")


def as_pixels(image: AnyPicture, factor: int) -> Tensor:
    """(3, H, W) float32 in [0, 1]. Raises ValueError for another kind, layout or range, or a side that is no
    multiple of `factor`; UserError for a PIL picture of numbers that are no colours."""
    if isinstance(image, Image.Image):
        image = to_rgb(image.copy(), Path("this picture"))  # upright, on white, as files are read
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"a picture is uint8 (H, W, 3), not {image.dtype} {image.shape}")
        image = torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1) / 255  # PIL's are read-only
    if not isinstance(image, Tensor):
        raise ValueError(f"a picture is uint8 (H, W, 3), a PIL picture or a tensor, not {image!r:.80}")
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise ValueError(
            f"a picture tensor is float (3, H, W) in [0, 1], not {image.dtype} {tuple(image.shape)}"
        )
    if image.shape[1] % factor or image.shape[2] % factor:
        raise ValueError(
            f"picture sides must be multiples of {factor}, not {image.shape[1]} x {image.shape[2]}"
        )
    low, high = image.min().item(), image.max().item()
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise ValueError(f"a picture tensor is float in [0, 1], not from {low:.3g} to {high:.3g}")
    return image.float()
