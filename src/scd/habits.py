"""What people do to every diffusers pipeline, where ours needs an answer of its own: LoRA files, attention
switches, other schedulers."""

from __future__ import annotations

import logging
import re
from typing import Any, ClassVar

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from diffusers.utils.hub_utils import validate_hf_hub_args

from scd.backbones.motion import is_temporal
from scd.reference import NOT_TO_DISK
from scd.schedulers import check_scheduler

logger = logging.getLogger(__name__)


class Habits(StableDiffusionLoraLoaderMixin, StableDiffusionMixin):
    """For `SCDPipeline`, before `DiffusionPipeline` in its bases."""

    unet: Any
    reference_unet: Any
    stamp: Any
    _lora_loadable_modules: ClassVar = ["unet"]

    def __setattr__(self, name: str, value: Any) -> None:
        """`pipe.scheduler = other`: refused (ValueError) when it cannot express the schedule that was
        trained."""
        if name == "scheduler" and value is not None and self.__dict__.get("scheduler") is not None:
            check_scheduler(self.__dict__["scheduler"], value)
        super().__setattr__(name, value)

    # ---- LoRA ----

    @validate_hf_hub_args
    def load_lora_weights(
        self, pretrained_model_name_or_path_or_dict: Any, adapter_name: str | None = None, **kwargs
    ) -> None:
        """A LoRA of Stable Diffusion 1.5 (diffusers', kohya's or LCM's layout) into the denoising network.

        A reference network stays as it is; what it sees is projected by the denoiser, LoRA included.
        safetensors only. Keys for text encoders are left out, with one line that says how many: SCD has none.
        Raises ValueError for a file whose keys do not fit the network. References encoded before are stale.
        """
        found: Any = self.lora_state_dict(
            pretrained_model_name_or_path_or_dict,
            use_safetensors=True, return_lora_metadata=True, unet_config=self.unet.config, **kwargs,
        )  # fmt: skip
        state, alphas, metadata = found
        state = dict(state)
        ours = {name: value for name, value in state.items() if name.startswith("unet.")}
        if not ours and not any(name.startswith("text_encoder") for name in state):
            ours = {f"unet.{name}": value for name, value in state.items()}  # saved without the prefix
        if dropped := len(state) - len(ours):
            if others := sorted(name for name in state if not name.startswith(("unet.", "text_encoder"))):
                other = others[0].partition(".")[0]
                raise ValueError(f"this LoRA also changes {other}; only the denoising network takes one")
            logger.warning("LoRA: %d keys for text encoders left out; SCD has no text encoder", dropped)
        self._check_lora(ours, pretrained_model_name_or_path_or_dict)
        if alphas is not None:
            alphas = {name: value for name, value in alphas.items() if name.startswith("unet.")}
        self.load_lora_into_unet(
            ours, network_alphas=alphas, unet=self.unet, adapter_name=adapter_name, metadata=metadata,
            _pipeline=self,
        )  # fmt: skip

    def _check_lora(self, state: dict[str, Any], source: Any) -> None:
        name = "this LoRA" if isinstance(source, dict) else str(source)
        if not state or not all("lora" in key for key in state):
            raise ValueError(f"{name}: holds no LoRA of a denoising network")
        known = {layer.replace(".base_layer", "") for layer, _ in self.unet.named_modules()}
        wanted = {re.split(r"\.(?:lora|processor)[._]", key.removeprefix("unet."))[0] for key in state}
        if missing := sorted(wanted - known):
            raise ValueError(
                f"{name}: made for another network, which has layers that this one lacks: "
                f"{', '.join(missing[:4])}{' ...' if len(missing) > 4 else ''}"
            )
        if "conv_in" in wanted:
            raise ValueError(f"{name}: changes conv_in, which carries the pose here and takes no LoRA")

    def fuse_lora(self, components: Any = ("unet",), *args, **kwargs) -> None:
        """As diffusers': add the active LoRA layers to the weights."""
        super().fuse_lora([components] if isinstance(components, str) else list(components), *args, **kwargs)

    def unfuse_lora(self, components: Any = ("unet",), **kwargs) -> None:
        """As diffusers': the opposite of `fuse_lora`."""
        super().unfuse_lora([components] if isinstance(components, str) else list(components), **kwargs)

    # ---- files and offload ----

    def refuse_loaded_lora(self) -> None:
        """Raise ValueError while a LoRA is loaded: a folder saved then could not be read again."""
        if any(getattr(network, "peft_config", None) for network in (self.unet, self.reference_unet)):
            raise ValueError(
                "a LoRA is loaded, which a model folder cannot hold: call unload_lora_weights() first, or "
                "fuse_lora() and then unload_lora_weights() to keep what it does"
            )

    def save_pretrained(self, save_directory: Any, safe_serialization: bool = True, *args, **kwargs) -> None:
        """As diffusers', in safetensors whatever is asked for."""
        if not safe_serialization:
            logger.warning("safe_serialization=False: weights are written as safetensors all the same")
        parent: Any = super()
        parent.save_pretrained(save_directory, True, *args, **kwargs)

    def enable_sequential_cpu_offload(self, gpu_id: int | None = None, device: Any = None) -> None:
        """As diffusers'. The stamp is made before, while weights are at hand. Raises RuntimeError without an
        accelerator."""
        if device is not None and torch.device(device).type == "cpu":  # accelerate fails in the first layer
            raise RuntimeError("sequential offload goes to an accelerator: weights are on the CPU already")
        _ = self.stamp
        parent: Any = super()
        parent.enable_sequential_cpu_offload(gpu_id=gpu_id, device=device)

    def enable_group_offload(self, *args, offload_to_disk_path: Any = None, **kwargs) -> None:
        """As diffusers', in memory. Raises ValueError for a folder: weights would be mixed up."""
        if offload_to_disk_path is not None:
            raise ValueError(NOT_TO_DISK)
        parent: Any = super()
        parent.enable_group_offload(*args, **kwargs)

    # ---- switches that would replace the attention processors ----

    def fuse_qkv_projections(self, unet: bool = True, vae: bool = True) -> None:
        """Of the VAE only. Raises ValueError for the network: fused layers would paint without the
        reference."""
        if unet:
            layer = next(name for name in self.unet.attn_processors if not is_temporal(name))
            raise ValueError(
                f"fused QKV: layer {layer.removesuffix('.processor')} would lose the processor that reads "
                "the reference; the VAE alone can be fused: fuse_qkv_projections(unet=False)"
            )
        super().fuse_qkv_projections(unet=False, vae=vae)

    def set_attention_slice(self, slice_size: Any) -> None:
        """Changes nothing: sliced processors would paint without the reference."""
        if slice_size is not None:
            logger.warning(
                "attention slicing: SDPA already keeps attention's memory small; nothing was changed"
            )

    def set_use_memory_efficient_attention_xformers(self, valid: bool, attention_op: Any = None) -> None:
        """Changes nothing: xformers' processors would paint without the reference."""
        if valid:
            logger.warning("xformers: SDPA already does this; nothing was changed")

    def load_ip_adapter(self, *_, **__) -> None:
        """Raises ValueError: an IP-Adapter replaces the attention processors."""
        raise ValueError(
            "IP-Adapter: it would replace the processors that read the reference; "
            "to show the network a picture, pipe.encode_reference does this"
        )
