"""The embedded model's codec: a linear basis of square patches behind AutoencoderKL's interface.

On drawn people a principal-component basis, fitted in seconds, beats a convolutional autoencoder trained for
minutes; and being orthonormal it makes a squared error of latents a squared error of pixels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn


class PatchCodec(ModelMixin, ConfigMixin):
    """encode = strided convolution, decode = transposed convolution.

    `scaling_factor` brings latents to unit standard deviation, as everywhere in diffusers;
    `block_out_channels` is there because pipelines read the downsampling factor from its length.
    """

    # group offload by blocks: `encode` and `decode` never pass through `forward`, where its hook sits
    _group_offload_block_modules: ClassVar = ["encoder", "decoder"]

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 32,
        patch_size: int = 8,
        scaling_factor: float = 1.0,
        block_out_channels: tuple[int, ...] = (1, 1, 1, 1),  # 2^(4 - 1) = 8, the patch size
    ):
        super().__init__()
        self.encoder = nn.Conv2d(3, latent_channels, patch_size, stride=patch_size)
        self.decoder = nn.ConvTranspose2d(latent_channels, 3, patch_size, stride=patch_size)

    @apply_forward_hook
    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """Pictures (B, 3, H, W) in [-1, 1], sides multiples of the patch's, p -> a distribution of zero width
        over (B, C, H/p, W/p)."""
        mean = self.encoder(x)
        distribution = DiagonalGaussianDistribution(
            torch.cat([mean, torch.zeros_like(mean)], 1), deterministic=True
        )
        return AutoencoderKLOutput(latent_dist=distribution) if return_dict else (distribution,)

    @apply_forward_hook
    def decode(self, z: Tensor, return_dict: bool = True, generator=None):
        """Unscaled latents (B, C, h, w) -> pictures (B, 3, p h, p w), about [-1, 1]."""
        x = self.decoder(z)
        return DecoderOutput(sample=x) if return_dict else (x,)

    def forward(self, sample: Tensor, return_dict: bool = True):
        return self.decode(self.encode(sample).latent_dist.mode(), return_dict)

    def enable_slicing(self) -> None:
        """Changes nothing: one convolution needs no more memory than the pictures."""

    disable_slicing = enable_tiling = disable_tiling = enable_slicing

    @property
    def loss_weights(self) -> Tensor:
        """Weight of each latent channel in training's loss, (C,), mean 1: proportional to what a unit of it
        moves in pixels.

        A unit of the first component moves a picture further than one of the last (4.8 times, in the embedded
        model's half-whitened codec).
        A squared error of pixels would weigh them by the square, an unweighted one wastes most of the network
        on texture: the geometric mean of both [ours].
        """
        moved = self.decoder.weight.flatten(1).norm(dim=1)
        return moved / moved.mean()

    @classmethod
    def fit(
        cls, pictures: Tensor, latent_channels: int = 32, patch_size: int = 8, whitening: float = 0.0
    ) -> PatchCodec:
        """The principal components of all patches of pictures (B, 3, H, W) in [-1, 1]; float64 inside, so the
        fit repeats.

        `whitening` w divides component i by std_i^w: 0 keeps an orthonormal basis, 1 gives every component
        unit std.
        """
        patches = pictures.double().unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
        patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * patch_size**2)
        mean = patches.mean(0)
        variances, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        basis = vectors.flip(1)[:, :latent_channels].T  # (C, 3 p p), largest variance first
        # An eigenvector's sign is the solver's choice: the largest element is made positive
        basis = basis * basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()
        std = variances.flip(0)[:latent_channels].clamp(min=1e-12).sqrt()
        gain = std.pow(-whitening)[:, None]
        codec = cls(
            latent_channels,
            patch_size,
            scaling_factor=float(1 / (std * gain[:, 0]).square().mean().sqrt()),
            block_out_channels=halvings(patch_size),
        )
        shape = (latent_channels, 3, patch_size, patch_size)
        with torch.no_grad():
            codec.encoder.weight.copy_((gain * basis).reshape(shape))
            codec.encoder.bias.copy_(-(gain * basis) @ mean)  # pyright: ignore[reportOptionalMemberAccess]
            codec.decoder.weight.copy_((basis / gain).reshape(shape))
            # A transposed convolution adds one bias per colour; the mean patch's own texture is far under
            # 1/255 and left out
            codec.decoder.bias.copy_(mean.reshape(3, -1).mean(1))  # type: ignore[union-attr]
        return codec


def halvings(patch_size: int) -> tuple[int, ...]:
    """`block_out_channels` of a codec whose patches have this side, a power of two."""
    return (1,) * patch_size.bit_length()


PatchCodec.__module__ = "scd"  # what model_index.json names, for ever
