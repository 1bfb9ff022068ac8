"""`SCDPipeline`: one reference picture, read once, and poses in; the same person in those poses out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin, UNet2DConditionModel
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from scd import process, stable_diffusion
from scd.backbones import unet as backbone
from scd.codec import PatchCodec
from scd.encoders import Encoders, Picture
from scd.habits import Habits
from scd.loading import load_networks
from scd.pose_encoder import PoseEncoder
from scd.reference import Reference, adapter_state, check_stamp, fingerprint, make_stamp
from scd.types import Pose

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


@dataclass
class SCDOutput(BaseOutput):
    """The pictures of one call."""

    # list of PIL, numpy (N, H, W, 3) in [0, 1], tensor (N, 3, H, W) in [0, 1], or latents (N, C, h, w)
    images: Any


class SCDPipeline(Encoders, Habits, DiffusionPipeline):
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
        self,
        # `from_pipe` reads these types
        vae: AutoencoderKL | PatchCodec,
        unet: UNet2DConditionModel,
        pose_encoder: PoseEncoder,
        scheduler: SchedulerMixin,
        image_encoder: CLIPVisionModelWithProjection | None = None,
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

    @classmethod
    def from_stable_diffusion(
        cls,
        folder_or_id: str | Path,
        image_encoder: str | Path | None = None,
        prediction_type: Literal["v_prediction", "epsilon"] = "v_prediction",
        variant: str | None = None,
        seed: int = 0,
        **options,
    ):
        """A starting point for training from Stable Diffusion 1.5, in float32: its network and VAE, a CLIP
        vision encoder (the context; None: one zero token), and a seeded pose encoder that passes nothing yet.

        Folders of any age: what lies on people's disks, half-precision variants included. `options` go to
        diffusers' `from_pretrained` (cache_dir, revision, token ...). Raises UserError that lists missing or
        left-over keys.
        """
        parts = stable_diffusion.components(
            folder_or_id, image_encoder, prediction_type, variant, seed, **options
        )
        return cls(**parts, default_size=parts["unet"].config.sample_size * 8)

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
        """What identifies the network that extracts and reads references; recomputed only when a parameter or
        an adapter changed."""
        timestep = self.config.reference_timestep
        seen = fingerprint(self.unet, self.pose_encoder), adapter_state(self.unet), timestep
        if self._stamp is None or (seen[0] is not None and self._stamp[0] != seen):
            self._stamp = seen, make_stamp(self.unet, self.pose_encoder, timestep)
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
        reference = self._check(reference, num, size, callback_on_step_end_tensor_inputs, output_type)
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

    # ---- parts of a call ----

    def _check(
        self, reference, num: int, size: tuple[int, int], tensor_inputs: Sequence[str], output_type: str
    ) -> Reference | None:
        factor = self.vae_scale_factor
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type {output_type!r} is not one of {', '.join(OUTPUT_TYPES)}")
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
