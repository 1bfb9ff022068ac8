"""Spatially Conditioned Diffusion: consistent human pictures from one reference.

    pipe = scd.load()                                    # the embedded model, or a folder's
    reference = pipe.encode_reference(image, pose=pose)  # read once
    pictures = pipe(reference, poses).images             # painted many times

Names load when first used, so that `import scd` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from scd.codec import PatchCodec
    from scd.model import load
    from scd.pipeline import SCDPipeline
    from scd.pose_encoder import PoseEncoder
    from scd.reference import Reference, StaleReference
    from scd.types import Pose, PoseClip, UserError

_HOME = {
    "PatchCodec": "scd.codec",
    "Pose": "scd.types",
    "PoseClip": "scd.types",
    "PoseEncoder": "scd.pose_encoder",
    "Reference": "scd.reference",
    "SCDPipeline": "scd.pipeline",
    "StaleReference": "scd.reference",
    "UserError": "scd.types",
    "load": "scd.model",
    # diffusers looks for this name in the module that model_index.json names, and saved folders name `scd`
    "ModelMixin": "diffusers.models.modeling_utils",
}
__all__ = [
    "PatchCodec",
    "Pose",
    "PoseClip",
    "PoseEncoder",
    "Reference",
    "SCDPipeline",
    "StaleReference",
    "UserError",
    "__version__",
    "load",
]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'scd' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
