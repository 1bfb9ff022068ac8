"""`SCDPipeline`: one reference picture, read once, and poses in; the same person in those poses out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from scd import process
from scd.backbones import unet as backbone
from scd.loading import load_networks
from scd.reference import Reference, check_stamp, make_stamp
from scd.types import Pose

Picture = Image.Image | np.ndarray | Tensor  # PIL; uint8 (H, W, 3); float (3, H, W) in [0, 1]

# CLIP's own preprocessing (Radford et al. 2021): resize to 224, then these means and deviations
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass
class SCDOutput(BaseOutput):
    """The pictures of one call."""

    # list of PIL, numpy (N, H, W, 3) in [0, 1], tensor (N, 3, H, W) in [0, 1], or latents (N, C, h, w)
    images: Any


class SCDPipeline(DiffusionPipeline):
    """Spatially Conditioned Diffusion on a stock `UNet2DConditionModel` and `AutoencoderKL` (or their like).

    Constants of the method are arguments here, so that they are saved in model_index.json and the networks'
    configs stay stock.
    """

    config: Any  # a FrozenDict: diffusers declares a plain dict
    progress_bar: Any  # patched onto the class by diffusers' decorators as far as a type checker sees
    model_cpu_offload_seq = "image_encoder->pose_encoder->unet->vae"
    _optional_components: ClassVar = ["image_encoder"]
    _callback_tensor_inputs: ClassVar = ["latents"]

    def __init__(
        self, vae, unet, pose_encoder, scheduler, image_encoder=None,
        reference_timestep: int = 0,  # METHOD 2: constant, so a cache is exact for every step
        # pixels of a picture when nothing else is asked for: what the network was trained at
        default_size: int | None = None,
        default_steps: int = 20,
        default_guidance: float = 3.5,
        world_version: int | None = None,  # of the procedural world it learnt, None for photographs
    ):  # fmt: skip
        super().__init__()
        self.register_modules(
            vae=vae,
            unet=backbone.adapt(unet),
            pose_encoder=pose_encoder,
            scheduler=scheduler,
            image_encoder=image_encoder,
        )
        self.register_to_config(
            reference_timestep=reference_timestep, default_size=default_size, default_steps=default_steps,
            default_guidance=default_guidance, world_version=world_version,
        )  # fmt: skip
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self._stamp: tuple[object, dict[str, str]] | None = None
        self._guidance_scale, self._interrupt, self._num_timesteps = 1.0, False, 0

    # ---- loading ----

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """As diffusers' own, from a folder or hub id; a folder's networks are checked: a missing or
        unexpected key is a UserError."""
        folder = Path(pretrained_model_name_or_path)
        kwargs["use_safetensors"] = True
        if folder.exists():
            kwargs = {**load_networks(folder, kwargs), **kwargs}
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    # ---- the reference: once ----

    @torch.no_grad()
    def encode_reference(
        self, image: Picture | Sequence[Picture], pose: Pose | Sequence[Pose | None] | None = None
    ) -> Reference:
        """Read one reference picture, or several that are joined in order (each with its own pose).

        Sides must be multiples of the VAE's factor (8). Without a pose (a garment) the pose features are
        zero. The result is a value: use it for any number of calls, save it, add it to others.
        """
        if isinstance(image, list | tuple):
            poses = pose if isinstance(pose, list | tuple) else [pose] * len(image)
            if not image or len(poses) != len(image):
                raise ValueError(f"{len(image)} reference pictures, but {len(poses)} poses")
            first, *rest = (self.encode_reference(i, p) for i, p in zip(image, poses, strict=True))
            return sum(rest, start=first)
        backbone.check_adapted(self.unet)
        pixels = self._pixels(image)  # type: ignore[arg-type]
        latents = self.encode_pictures(pixels)
        size = (pixels.shape[2], pixels.shape[3])
        features = self.encode_poses([pose], size) if isinstance(pose, Pose) else None
        context = self.encode_context(pixels)
        cache = backbone.extract(self.unet, latents, self.config.reference_timestep, features, context)
        return Reference(cache, context, self.stamp)

    @property
    def stamp(self) -> dict[str, str]:
        """What identifies the network that extracts and reads references; recomputed only when a parameter
        changed."""
        state = [*self.unet.parameters(), *self.pose_encoder.parameters()]
        seen = tuple((p.data_ptr(), p._version, p.dtype) for p in state), _adapter_state(self.unet)
        if self._stamp is None or self._stamp[0] != seen:
            self._stamp = seen, make_stamp(self.unet, self.pose_encoder, self.config.reference_timestep)
        return self._stamp[1]

    # ---- the pictures: many ----

    @torch.no_grad()
    def __call__(
        self,
        reference: Reference | Sequence[Reference] | None,
        poses: Pose | Sequence[Pose],
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> SCDOutput | tuple:
        """N poses in, N pictures out.

        reference: one for all pictures, or a list of N, one each; None paints without one. poses: a Pose or N
        of them. generator: one, which is split by index (so that picture i does not depend on N), or N.
        latents: (N, C, h, w) initial noise of unit variance. guidance_scale 1 computes nothing twice.
        output_type: pil, np, pt or latent.

        Raises ValueError for arguments that do not fit, StaleReference when the reference comes from another
        network.
        """
        poses = [poses] if isinstance(poses, Pose) else list(poses)
        num, device, dtype = len(poses), self._execution_device, self.unet.dtype
        size = (
            height or self.config.default_size or poses[0].size[0],
            width or self.config.default_size or poses[0].size[1],
        )
        reference = self._check(reference, num, size, callback_on_step_end_tensor_inputs)
        self._guidance_scale = float(
            self.config.default_guidance if guidance_scale is None else guidance_scale
        )
        self._interrupt = False
        guided = self._guidance_scale != 1 and reference is not None

        generators = split_generator(generator, num)
        features = self.encode_poses(poses, size)
        context, owner, cache = self._reading(reference, num, guided)
        latents = self._initial_latents(latents, num, size, generators, device, dtype)

        self.scheduler.set_timesteps(num_inference_steps or self.config.default_steps, device=device)
        timesteps = self.scheduler.timesteps
        self._num_timesteps = len(timesteps)
        latents = latents * self.scheduler.init_noise_sigma
        extra = self._step_arguments(generators)
        if guided:
            features = torch.cat([features, features])
        with self.progress_bar(total=len(timesteps)) as progress:
            for index, t in enumerate(timesteps):
                if self._interrupt:
                    continue
                rows = self.scheduler.scale_model_input(latents, t)
                rows = torch.cat([rows, rows]) if guided else rows
                prediction = backbone.denoise(
                    self.unet, rows.to(dtype), t.expand(len(rows)), features, context, cache, owner
                )
                if guided:
                    prediction = process.guide(*prediction.chunk(2), self._guidance_scale)
                latents = self.scheduler.step(prediction, t, latents, return_dict=False, **extra)[0]
                if callback_on_step_end is not None:
                    offered = {"latents": latents}
                    given = {name: offered[name] for name in callback_on_step_end_tensor_inputs}
                    changed = callback_on_step_end(self, index, t, given) or {}
                    latents = changed.get("latents", latents)
                progress.update()
        assert latents is not None
        images = latents if output_type == "latent" else self._finish(latents, output_type)
        self.maybe_free_model_hooks()
        return SCDOutput(images=images) if return_dict else (images,)

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        return self._interrupt

    # ---- encoders, shared with training ----

    def encode_pictures(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] -> scaled latents: the posterior's mode, or a sample when a
        generator is given."""
        distribution = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
        latents = distribution.mode() if generator is None else distribution.sample(generator)
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return ((latents - shift) * self.vae.config.scaling_factor).to(self.unet.dtype)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """The inverse of `encode_pictures`: pictures (B, 3, H, W) in [0, 1]."""
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        latents = latents / self.vae.config.scaling_factor + shift
        return (self.vae.decode(latents.to(self.vae.dtype)).sample.float() / 2 + 0.5).clamp(0, 1)

    def encode_poses(self, poses: Sequence[Pose], size: tuple[int, int]) -> Tensor:
        """Drawings of the poses at (H, W), encoded: features (N, c, h, w)."""
        from scd.pose.draw import draw_pose

        drawings = torch.from_numpy(np.stack([draw_pose(pose, size) for pose in poses]))
        drawings = drawings.permute(0, 3, 1, 2).to(self._execution_device, self.pose_encoder.dtype) / 255
        return self.pose_encoder(drawings)

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

    def training_context(self, references: Tensor, owner: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Context rows of a joint pass: references (G, R, 3, H, W) uint8 -> (G R, R, D) and (B, R, D).

        A target sees the tokens of all its references, a dropped one zeros. A reference sees its own token,
        repeated R times because rows of one batch have one length: equal keys and values leave attention as
        it is.
        """
        groups, num = references.shape[:2]
        if self.image_encoder is None:
            zero = torch.zeros(1, 1, self.unet.config.cross_attention_dim, device=self.unet.device)
            return zero.expand(groups * num, -1, -1), zero.expand(len(owner), -1, -1)
        with torch.no_grad():
            pixels = references.flatten(0, 1).to(self.image_encoder.device).float() / 127.5 - 1
            tokens = self.encode_context(pixels)  # (G R, 1, D)
        of_group = tokens.reshape(groups, num, -1)
        of_target = torch.stack([of_group[g] if g >= 0 else torch.zeros_like(of_group[0]) for g in owner])
        return tokens.expand(-1, num, -1), of_target

    # ---- parts of a call ----

    def _check(
        self, reference, num: int, size: tuple[int, int], tensor_inputs: Sequence[str]
    ) -> Reference | None:
        factor = self.vae_scale_factor
        if num == 0:
            raise ValueError("no poses: give a Pose or a list of them")
        if size[0] % factor or size[1] % factor:
            raise ValueError(f"height and width must be multiples of {factor}, not {size[0]} x {size[1]}")
        if unknown := set(tensor_inputs) - set(self._callback_tensor_inputs):
            raise ValueError(
                f"callback tensors {sorted(unknown)} are not offered; only {self._callback_tensor_inputs}"
            )
        if reference is None:
            return None
        backbone.check_adapted(self.unet)
        if isinstance(reference, list | tuple):
            if len(reference) != num:
                raise ValueError(
                    f"{len(reference)} references for {num} poses: give one for all, or one each"
                )
            reference = Reference.stack(reference)
        check_stamp(reference.stamp, self.stamp)
        return reference.to(self._execution_device)

    def _reading(self, reference: Reference | None, num: int, guided: bool):
        """Context rows, each row's owner and the cache: [unconditional, conditional] rows when guided (METHOD
        3)."""
        if reference is None:
            zero = torch.zeros(
                num,
                1,
                self.unet.config.cross_attention_dim,
                device=self._execution_device,
                dtype=self.unet.dtype,
            )
            return zero, (-1,) * num, None
        owner = tuple(range(num)) if reference.num_groups > 1 else (0,) * num
        context = reference.context.expand(num, -1, -1)
        if guided:
            context, owner = torch.cat([torch.zeros_like(context), context]), (-1,) * num + owner
        return context, owner, reference.cache

    def _initial_latents(self, latents, num: int, size, generators, device, dtype) -> Tensor:
        shape = (
            num,
            self.unet.config.in_channels,
            size[0] // self.vae_scale_factor,
            size[1] // self.vae_scale_factor,
        )
        if latents is not None:
            if tuple(latents.shape) != shape:
                raise ValueError(f"latents have shape {tuple(latents.shape)}, not {shape}")
            return latents.to(device, dtype)
        # Each picture's noise comes from its own generator, on that generator's device: the same on every
        # machine
        noise = [
            torch.randn(shape[1:], generator=g, device=g.device if g else None, dtype=torch.float32)
            for g in generators
        ]
        return torch.stack([n.to(device, dtype) for n in noise])

    def _step_arguments(self, generators: list) -> dict[str, Any]:
        takes = inspect.signature(self.scheduler.step).parameters
        return {"generator": generators} if "generator" in takes and generators[0] is not None else {}

    def _finish(self, latents: Tensor, output_type: str):
        pixels = self.decode_latents(latents)
        if output_type == "pt":
            return pixels
        array = pixels.permute(0, 2, 3, 1).float().cpu().numpy()
        if output_type == "np":
            return array
        return [Image.fromarray(picture) for picture in np.rint(array * 255).astype(np.uint8)]

    def _pixels(self, image: Picture) -> Tensor:
        """(1, 3, H, W) in [-1, 1] on the execution device. Raises ValueError for another layout or a side
        that is no multiple."""
        if isinstance(image, Image.Image):
            image = np.asarray(image.convert("RGB"))
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"a picture is uint8 (H, W, 3), not {image.dtype} {image.shape}")
            image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) / 255
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"a picture tensor is (3, H, W) in [0, 1], not {tuple(image.shape)}")
        if image.shape[1] % self.vae_scale_factor or image.shape[2] % self.vae_scale_factor:
            raise ValueError(
                f"picture sides must be multiples of {self.vae_scale_factor}, "
                f"not {image.shape[1]} x {image.shape[2]}"
            )
        return image[None].to(self._execution_device, torch.float32) * 2 - 1


def split_generator(generator, num: int) -> list[torch.Generator | None]:
    """N generators from one, by index: number i is the same whatever N is. A list of N passes through; None
    stays unseeded.

    Number 0 is the given generator itself, so that one picture is the same with `generator=g` and
    `generator=[g]`; the others are seeded from a copy of its state.
    """
    if generator is None:
        return [None] * num
    if isinstance(generator, list | tuple):
        if len(generator) != num:
            raise ValueError(f"{len(generator)} generators for {num} pictures")
        return list(generator)
    copy = torch.Generator(generator.device)
    copy.set_state(generator.get_state())
    base = int(torch.randint(2**62, (), generator=copy, device=copy.device))
    seeds = [
        int(np.random.SeedSequence([base, i]).generate_state(1, np.uint64)[0]) >> 1 for i in range(1, num)
    ]
    return [generator, *(torch.Generator(generator.device).manual_seed(seed) for seed in seeds)]


def _adapter_state(unet) -> str:
    return str(
        [(n, m.scaling, m.active_adapters, m.merged) for n, m in unet.named_modules() if hasattr(m, "lora_A")]
    )
