"""The pose encoder: a drawing of the skeleton -> features that are added after the network's first
convolution (METHOD 3)."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class PoseEncoder(ModelMixin, ConfigMixin):
    """Small convolutional encoder, shared by reference and target; its last layer starts at zero, so training
    starts at the network alone.

    Each channel count after the first halves the resolution: `len(channels) - 1` halvings must reach the
    latent size (3 for f = 8).
    """

    @register_to_config
    def __init__(
        self, out_channels: int = 320, channels: tuple[int, ...] = (16, 32, 96, 256), in_stride: int = 1
    ):
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels[0], 3, stride=in_stride, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(channels):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(channels[-1], out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # pyright: ignore[reportArgumentType]

    @property
    def is_trained(self) -> bool:
        """False while the last layer is still zero: such an encoder passes no pose at all."""
        return bool((self.conv_out.weight != 0).any())

    def forward(self, drawing: Tensor) -> Tensor:
        """drawing (rows, 3, H, W) in [0, 1], black where nothing is drawn -> features (rows, out_channels, h,
        w)."""
        x = F.silu(self.conv_in(drawing))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)


PoseEncoder.__module__ = "scd"  # what model_index.json names, for ever
