"""`SCDPipeline`: one reference picture, read once, and poses in; the same person in those poses out, as
pictures or as a clip."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    MotionAdapter,
    SchedulerMixin,
    UNet2DConditionModel,
    UNetMotionModel,
)
from diffusers.utils import BaseOutput
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from scd import stable_diffusion
from scd.backbones import motion
from scd.backbones import unet as backbone
from scd.codec import PatchCodec
from scd.denoiser import Denoiser
from scd.encoders import AnyPicture, Encoders
from scd.habits import Habits, with_own_motion
from scd.inpaint import AnyRegion, Canvas, as_targets
from scd.inputs import (
    as_clips,
    initial_latents,
    inside,
    on_device,
    outside,
    painted_size,
    same_for_frames,
    split_generator,
)
from scd.loading import load_networks
from scd.pose_encoder import PoseEncoder
from scd.reference import Reference, active_switches, as_reference, check_stamp, fingerprint, make_stamp
from scd.savepoint import EVERY, Savepoint, loop_settings
from scd.schedulers import begin
from scd.types import Pose, PoseClip, UserError

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


@dataclass
class SCDOutput(BaseOutput):
    """The pictures of one call, or the frames of its clips; the other is None."""

    # list of PIL, numpy (N, H, W, 3) in [0, 1], tensor (N, 3, H, W) in [0, 1], or latents (N, C, h, w)
    images: Any = None
    # N lists of T PIL, numpy (N, T, H, W, 3), tensor (N, T, 3, H, W), or latents (N, C, T, h, w)
    frames: Any = None


class SCDPipeline(Encoders, Habits, DiffusionPipeline):
    """Spatially Conditioned Diffusion on a stock `UNet2DConditionModel` and `AutoencoderKL` (or their like).

    Constants of the method are arguments here, so that they are saved in model_index.json and the networks'
    configs stay stock.
    """

    config: Any  # a FrozenDict: diffusers declares a plain dict
    progress_bar: Any  # patched onto the class by diffusers' decorators as far as a type checker sees
    # Each sends the one before it away, in the order of the calls of `encode_reference`
    model_cpu_offload_seq = "pose_encoder->image_encoder->reference_unet->unet->vae"
    _optional_components: ClassVar = ["image_encoder", "motion_adapter", "reference_unet"]
    _callback_tensor_inputs: ClassVar = ["latents"]

    def __init__(
        self,
        # `from_pipe` reads these types
        vae: AutoencoderKL | PatchCodec,
        unet: UNet2DConditionModel | UNetMotionModel,
        pose_encoder: PoseEncoder,
        scheduler: SchedulerMixin,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        motion_adapter: MotionAdapter | None = None,  # its layers join `unet`, which then paints clips
        reference_unet: UNet2DConditionModel | None = None,  # reads references; None: `unet`, as in SCD
        reference_timestep: int = 0,  # METHOD 2: constant, so a cache is exact for every step
        # pixels when no height and width are asked for, both sides: the root of what it was trained at
        default_size: int | None = None,
        default_steps: int = 20,
        default_guidance: float = 3.5,
        # frames of a window of a long clip, and how many neighbouring windows share
        default_window: int = 24,
        default_overlap: int = 6,
        motion_norm_per_frame: bool = True,  # METHOD 5: what public motion adapters expect
        shared_noise: bool = False,  # the frames of a clip are painted from one noise, at every step
        world_version: int | None = None,  # of the procedural world it learnt, None for photographs
        reference_pose: bool = True,  # METHOD 3: a reference has its own pose's features, if it is given
        pose_drawing: str = "openpose",  # how poses are drawn, or "dwpose" (scd.pose.draw)
    ):  # fmt: skip
        super().__init__()
        unet, motion_adapter = motion.fitted(unet, motion_adapter)
        self.register_modules(
            vae=vae,
            unet=backbone.adapt(unet),
            pose_encoder=pose_encoder,
            scheduler=scheduler,
            image_encoder=image_encoder,
            motion_adapter=motion_adapter,
            reference_unet=reference_unet and backbone.adapt(reference_unet),
        )
        motion.set_norm(unet, motion_norm_per_frame)
        self.register_to_config(
            reference_timestep=reference_timestep, default_size=default_size, default_steps=default_steps,
            default_guidance=default_guidance, default_window=default_window, default_overlap=default_overlap,
            motion_norm_per_frame=motion_norm_per_frame, shared_noise=shared_noise,
            world_version=world_version, reference_pose=reference_pose, pose_drawing=pose_drawing,
        )  # fmt: skip
        vae_config: Any = vae.config
        self.vae_scale_factor = 2 ** (len(vae_config.block_out_channels) - 1)
        self._stamp: Any = None  # what was seen of the networks, and the stamp made then
        self._guidance_scale, self._interrupt, self._num_timesteps = 1.0, False, 0

    # ---- loading ----

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """As diffusers' own, from a folder or hub id; the networks are checked: a missing or unexpected key
        is a UserError."""
        folder = Path(pretrained_model_name_or_path)
        kwargs["use_safetensors"] = True
        if not folder.exists():  # an id: its folder in the cache
            folder = Path(cls.download(pretrained_model_name_or_path, **kwargs))
        given = with_own_motion(kwargs)
        scheduler = given.pop("scheduler", None)
        given = {**load_networks(folder, given), **given}
        pipe = super().from_pretrained(pretrained_model_name_or_path, **given)
        if scheduler is not None:
            pipe.scheduler = scheduler  # refused when it cannot do the schedule of the folder's own
        return pipe

    @classmethod
    def from_stable_diffusion(
        cls,
        folder_or_id: str | Path,
        image_encoder: str | Path | None = None,
        motion_adapter: str | Path | MotionAdapter | None = None,
        prediction_type: Literal["v_prediction", "epsilon"] = "v_prediction",
        variant: str | None = None,
        seed: int = 0,
        **options,
    ):
        """A starting point for training from Stable Diffusion 1.5, in float32: its network and VAE, a CLIP
        vision encoder (the context; None: one zero token), AnimateDiff's temporal layers (None: pictures
        only), and a seeded pose encoder that passes nothing yet.

        Folders of any age: what lies on people's disks, half-precision variants included. `options` go to
        diffusers' `from_pretrained` (cache_dir, revision, token ...). Raises UserError that lists missing or
        left-over keys, and for an adapter of another shape.
        """
        parts = stable_diffusion.components(
            folder_or_id, image_encoder, motion_adapter, prediction_type, variant, seed, **options
        )
        try:
            return cls(**parts, default_size=parts["unet"].config.sample_size * 8)
        except ValueError as error:
            raise UserError(f"{motion_adapter}: {error}") from error

    def save_pretrained(self, save_directory, *args, **kwargs):
        """As diffusers' own. Picture network and motion adapter are written apart, as stock classes."""
        self.refuse_loaded_lora()
        together = self.unet, self.motion_adapter
        if motion.has_motion(self.unet):
            self.unet, self.motion_adapter = motion.split(self.unet)
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.unet, self.motion_adapter = together

    # ---- the reference: once ----

    @torch.no_grad()
    def encode_reference(
        self, image: AnyPicture | Sequence[AnyPicture], pose: Pose | Sequence[Pose | None] | None = None
    ) -> Reference:
        """Read one reference picture, or several that are joined in order (each with its own pose, or None
        for all).

        Sides must be multiples of the VAE's factor (8; the embedded model's 4). Without a pose (a garment)
        the pose features are zero. The result is a value: use it for any number of calls, save it, add it to
        others.
        """
        if isinstance(image, list | tuple):
            poses = [None] * len(image) if pose is None else pose
            if not image or isinstance(poses, Pose) or len(poses) != len(image):
                given = "one pose" if isinstance(poses, Pose) else f"{len(poses)} poses"
                raise ValueError(f"{len(image)} reference pictures, but {given}: give a list, one each")
            first, *rest = (self.encode_reference(i, p) for i, p in zip(image, poses, strict=True))
            return sum(rest, start=first)
        if not (pose is None or isinstance(pose, Pose)):
            raise ValueError(f"a reference picture has one Pose, or None, not a {type(pose).__name__}")
        for network in self._readers:
            backbone.check_adapted(network)
        pixels = self._pixels(image)  # type: ignore[arg-type]
        latents = self.encode_pictures(pixels)
        features = self.encode_reference_pose(pose, (pixels.shape[2], pixels.shape[3]))
        context = self.encode_context(pixels)
        read = latents, self.config.reference_timestep, features, context
        cache = backbone.extract(self.unet, *read, self.reference_unet)
        return Reference(cache, context, self.stamp)

    @property
    def stamp(self) -> dict[str, str]:
        """What identifies the network that extracts and reads references; recomputed only when a parameter or
        an adapter changed."""
        timestep = self.config.reference_timestep
        known: Any = self._stamp[0] if self._stamp else (None,)
        # weights that are away (None) are what they were
        values = fingerprint(*self._readers, self.pose_encoder) or known[0]
        # dtypes apart: a network that is widened keeps its values
        dtypes = tuple(network.dtype for network in (*self._readers, self.pose_encoder))
        seen = values, *map(active_switches, self._readers), timestep, dtypes
        if known != seen:
            self._stamp = seen, make_stamp(self.unet, self.pose_encoder, timestep, self.reference_unet)
        return self._stamp[1]

    @property
    def _readers(self) -> list[Any]:
        """The networks that a reference passes through."""
        return [network for network in (self.unet, self.reference_unet) if network is not None]

    # ---- the pictures: many ----

    @torch.no_grad()
    def __call__(
        self,
        reference: Reference | Sequence[Reference] | None,
        poses: Pose | PoseClip | Sequence[Pose] | Sequence[PoseClip] | None = None,
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
        window: int | None = None,
        overlap: int | None = None,
        work_folder: str | Path | None = None,
        num_images_per_prompt: int = 1,
        *,
        person: AnyPicture | Sequence[AnyPicture] | None = None,
        region: AnyRegion | Sequence[AnyRegion] | None = None,
    ) -> SCDOutput | tuple:
        """N poses in, N pictures out (`.images`); N pose clips of one length in, N clips out (`.frames`).

        reference: one for all, or a list of N, one each; None paints without one. poses: a Pose or N of them,
        a PoseClip or N of them. generator: one, which is split by index (so that picture i does not depend on
        N), or N. height, width: if not said the bucket nearest to the (first) pose's picture
        (`scd.data.buckets.Buckets.of(pipe.config)`), for a model of drawn people its square.
        latents: (N, C, h, w) initial noise of unit variance, of clips (N, C, T, h, w).
        guidance_scale 1, or less, computes nothing twice. output_type: pil, np, pt or latent. window,
        overlap: frames, for clips longer than a window. work_folder: every few steps the state is saved
        there, and the same call goes on from it. num_images_per_prompt, diffusers' name: pictures (or clips)
        of each pose, in a row; generators, latents and the result are then as many.

        person, region: a picture (as `encode_reference` takes it) that is painted in the region only, (H, W)
        bool, True = generate, or a PIL mask; each one for all, or a list of N. Height and width are the
        person's; without a pose, or with None in the list, none is known. Outside the region pictures keep
        the person's pixels, and latents the person's latents, exactly; a callback sees the sampler's own
        state, which means nothing there.

        Raises ValueError for arguments that do not fit, StaleReference when the reference comes from another
        network.
        """
        poses, (height, width) = as_targets(
            person, region, poses, reference, (height, width), self.vae_scale_factor
        )
        is_clip, clips = as_clips(poses, num_images_per_prompt)
        num, frames = len(clips), len(clips[0])
        size = painted_size(self.config, height, width, clips[0][0])
        # diffusers' own callback objects name their tensors themselves
        tensors = getattr(callback_on_step_end, "tensor_inputs", callback_on_step_end_tensor_inputs)
        reference = self._check(reference, num // num_images_per_prompt, frames, size, tensors, output_type)
        self._guidance_scale = float(
            self.config.default_guidance if guidance_scale is None else guidance_scale
        )
        self._interrupt = False
        motion.set_norm(self.unet, self.config.motion_norm_per_frame)  # a pipeline that shares it may differ
        # As asked for: they say which loop it is. Then those of the first noise, and of what steps draw
        asked = generators = split_generator(generator, num)
        if generator is None and self.config.shared_noise:
            generators = split_generator(torch.Generator().manual_seed(int(torch.randint(2**62, ()))), num)
        denoiser = Denoiser(
            self, reference, clips, size, self._guidance_scale,
            window or self.config.default_window,
            self.config.default_overlap if overlap is None else overlap,
        )  # fmt: skip

        canvas = None
        if person is not None:
            canvas = Canvas.of(self, person, region, num, num_images_per_prompt)
        device, dtype = denoiser.home
        timesteps = begin(self.scheduler, num_inference_steps, self.config.default_steps, device)
        self._num_timesteps, first = len(timesteps), 0
        savepoint, drawing = None, on_device(generators, device)
        if work_folder is not None:
            settings = loop_settings(self, denoiser, timesteps, asked, latents, canvas)
            savepoint = Savepoint(work_folder, settings)
        if saved := savepoint and savepoint.load(self.scheduler, drawing, device):
            state, first, self._guidance_scale = saved[0].to(device, dtype), *saved[1:]
        else:
            state = initial_latents(self, latents, (num, frames), is_clip, size, generators, (device, dtype))
            state = state * self.scheduler.init_noise_sigma
        with self.progress_bar(total=len(timesteps)) as progress:
            progress.update(first)
            for index, t in list(enumerate(timesteps))[first:]:
                if self._interrupt:
                    continue
                denoiser.guidance = self._guidance_scale  # a callback may have changed it
                seen = self.scheduler.scale_model_input(state, t)
                prediction = denoiser(seen if canvas is None else canvas.compose(seen), t, index)
                state = self._step(prediction, t, state, drawing)
                if callback_on_step_end is not None:
                    offered = {"latents": outside(state, is_clip)}
                    given = {name: offered[name] for name in tensors}
                    changed = callback_on_step_end(self, index, t, given) or {}
                    if "latents" in changed:
                        state = inside(changed["latents"], is_clip)
                if savepoint and ((index + 1) % EVERY == 0 or index + 1 == len(timesteps)):
                    savepoint.save(index + 1, self._guidance_scale, state, self.scheduler, drawing)
                progress.update()
        state = outside(state if canvas is None else canvas.compose(state), is_clip)
        result = state if output_type == "latent" else self.decode_output(state, is_clip, output_type, canvas)
        self.maybe_free_model_hooks()
        if not return_dict:
            return (result,)
        return SCDOutput(frames=result) if is_clip else SCDOutput(images=result)

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
        self, reference, num: int, frames: int, size: tuple[int, int], tensor_inputs: Sequence[str],
        output_type: str,
    ) -> Reference | None:  # fmt: skip
        factor = self.vae_scale_factor
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type {output_type!r} is not one of {', '.join(OUTPUT_TYPES)}")
        if size[0] % factor or size[1] % factor:
            raise ValueError(f"height and width must be multiples of {factor}, not {size[0]} x {size[1]}")
        if unknown := set(tensor_inputs) - set(self._callback_tensor_inputs):
            raise ValueError(
                f"callback tensors {sorted(unknown)} are not offered; only {self._callback_tensor_inputs}"
            )
        if frames > 1 and not motion.has_motion(self.unet):
            raise ValueError(
                "this model has no motion modules and paints pictures only; its frames would flicker: give "
                "SCDPipeline a motion_adapter, or the poses as a list of Pose"
            )
        if reference is None:
            return None
        backbone.check_adapted(self.unet)
        reference = as_reference(reference)
        if reference.num_groups not in (1, num):
            raise ValueError(
                f"{reference.num_groups} references for {num} poses: give one for all, or one each"
            )
        check_stamp(reference.stamp, self.stamp)
        return reference.to(self._execution_device)

    def _step(self, prediction: Tensor, t: Tensor, state: Tensor, generators: list) -> Tensor:
        """The scheduler's step; what it draws comes from each clip's generator, with `shared_noise` the same
        for all frames."""
        step = partial(self.scheduler.step, return_dict=False)
        if "generator" not in inspect.signature(self.scheduler.step).parameters or generators[0] is None:
            return step(prediction, t, state)[0]
        if not self.config.shared_noise:
            return step(prediction, t, state, generator=generators)[0]
        rows = same_for_frames(generators, state.shape[1])
        return step(prediction.flatten(0, 1), t, state.flatten(0, 1), generator=rows)[0].view(state.shape)
