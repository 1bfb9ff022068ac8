"""The pose encoder: a drawing of the skeleton -> features that are added after the network's first
convolution (METHOD 3)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class PoseEncoder(ModelMixin, ConfigMixin):
    """Small convolutional encoder, shared by reference and target; its last layer starts at zero, so training
    starts at the network alone.

    Each channel count after the first halves the resolution, and so does `in_stride` 2: together they must
    reach the latent size (3 halvings for f = 8). `num_frequencies` > 0 adds each latent pixel's place before
    the last layer (`place_features`).
    """

    config: Any  # a FrozenDict: diffusers declares a plain dict

    @register_to_config
    def __init__(
        self,
        out_channels: int = 320,
        channels: tuple[int, ...] = (16, 32, 96, 256),
        in_stride: int = 1,
        num_frequencies: int = 0,
        dilations: tuple[int, ...] = (),  # of residual convolutions at the latent size: a wider view
    ):
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels[0], 3, stride=in_stride, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(channels):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.context = nn.ModuleList(
            nn.Conv2d(channels[-1], channels[-1], 3, padding=d, dilation=d) for d in dilations
        )
        self.conv_out = nn.Conv2d(channels[-1] + 4 * num_frequencies, out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # pyright: ignore[reportArgumentType]

    @property
    def is_trained(self) -> bool:
        """False while the last layer is still zero: such an encoder passes no pose at all."""
        return bool((self.conv_out.weight != 0).any())

    def forward(self, drawing: Tensor) -> Tensor:
        """drawing (rows, 3, H, W) in [0, 1], black elsewhere -> features (rows, out_channels, h, w)."""
        x = F.silu(self.conv_in(drawing))
        for block in self.blocks:
            x = F.silu(block(x))
        for layer in self.context:
            x = x + F.silu(layer(x))
        if self.config.num_frequencies:
            x = torch.cat([x, place_features(x, self.config.num_frequencies)], dim=1)
        return self.conv_out(x)


def place_features(x: Tensor, num_frequencies: int) -> Tensor:
    """Where each latent pixel of x (rows, c, h, w) lies: sin and cos of 2^k pi/2 times its coordinates in
    [-1, 1], k = 0, 1, ...: (rows, 4 num_frequencies, h, w).

    Self-attention knows no places; a pretrained network has learnt them from the borders, a network made from
    nothing finds "the same place in the reference" much sooner when told.
    """
    rows, _, height, width = x.shape
    angles = [
        torch.linspace(1 / n - 1, 1 - 1 / n, n, device=x.device)
        * (torch.pi / 2 * 2 ** torch.arange(num_frequencies, device=x.device))[:, None]
        for n in (height, width)
    ]  # (num_frequencies, height) and (num_frequencies, width)
    waves = [
        wave.expand(num_frequencies, height, width)
        for a in (angles[0][:, :, None], angles[1][:, None, :])
        for wave in (a.sin(), a.cos())
    ]
    return torch.cat(waves).to(x.dtype).expand(rows, -1, -1, -1)


PoseEncoder.__module__ = "scd"  # what model_index.json names, for ever
