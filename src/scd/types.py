"""The values that travel between the parts: frozen, with their shapes on the fields. NumPy only, so that
importing them is instant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Mask = NDArray[np.bool_]  # (H, W)
Region = Mask  # (H, W), True = generate
Person = int | Literal["largest"]  # which of a picture's people: a number from 1 on, from left to right

# Joint order (DWPose): 18 body joints in OpenPose order (neck = middle of the shoulders), 68 face, 21 left
# hand, 21 right hand.
NUM_BODY, NUM_FACE, NUM_HAND = 18, 68, 21
NUM_JOINTS = NUM_BODY + NUM_FACE + 2 * NUM_HAND  # 128
BODY = slice(0, 18)
FACE = slice(18, 86)
LEFT_HAND = slice(86, 107)
RIGHT_HAND = slice(107, 128)

BODY_NAMES = (
    "nose", "neck",
    "right_shoulder", "right_elbow", "right_wrist",
    "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle",
    "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip


class UserError(Exception):
    """An error that the user can mend: the command line prints its one line and exits with code 2, without a
    traceback.

    The message names the file (or the option) and says what to do.
    """


@dataclass(frozen=True)
class Pose:
    """One person in one picture.

    `right` and `left` are the person's own. An absent joint has score 0 and coordinates 0.
    """

    joints: NDArray[
        np.float32
    ]  # (128, 2) x, y as fractions of the picture's width and height; the top left corner is (0, 0)
    scores: NDArray[
        np.float32
    ]  # (128,) confidence in [0, 1]; 0 = absent; the world gives 1 = seen, 0.5 = in the picture but hidden
    size: tuple[int, int]  # (height, width) of that picture in pixels

    def __post_init__(self) -> None:
        if self.joints.shape != (NUM_JOINTS, 2) or self.scores.shape != (NUM_JOINTS,):
            raise ValueError(
                f"a Pose holds joints ({NUM_JOINTS}, 2) and scores ({NUM_JOINTS},), "
                f"not {self.joints.shape} and {self.scores.shape}"
            )


@dataclass(frozen=True, eq=False)
class PoseClip:
    """One person through the T >= 1 frames of a clip. `clip[t]` is a Pose, `clip[a:b]` a shorter clip.

    A frame without the person has score 0 and coordinates 0 at every joint.
    """

    joints: NDArray[
        np.float32
    ]  # (T, 128, 2) x, y as fractions of the frame's width and height; may lie outside 0..1
    scores: NDArray[np.float32]  # (T, 128) confidence in [0, 1]; 0 = absent
    size: tuple[int, int]  # (height, width) of the frames in pixels
    fps: float  # frames per second, above 0

    def __post_init__(self) -> None:
        num_frames = len(self.joints)
        if self.joints.shape != (num_frames, NUM_JOINTS, 2) or self.scores.shape != (num_frames, NUM_JOINTS):
            raise ValueError(
                f"a PoseClip holds joints (T, {NUM_JOINTS}, 2) and scores (T, {NUM_JOINTS}), "
                f"not {self.joints.shape} and {self.scores.shape}"
            )
        if not num_frames:
            raise ValueError("a PoseClip has at least one frame")
        if not 0 < self.fps < float("inf"):
            raise ValueError(f"a PoseClip has a frame rate above 0, not {self.fps}")

    @classmethod
    def from_poses(
        cls, poses: Iterable[Pose | None], fps: float, size: tuple[int, int] | None = None
    ) -> PoseClip:
        """The clip of T poses; None = nobody in that frame. `size` is needed only when all are None.

        ValueError when there is no frame, or when the poses' sizes differ.
        """
        frames = list(poses)
        sizes = {pose.size for pose in frames if pose is not None} | ({size} if size else set())
        if len(sizes) != 1:
            raise ValueError(f"the frames of one clip share one size (height, width), not {sorted(sizes)}")
        joints = np.zeros((len(frames), NUM_JOINTS, 2), np.float32)
        scores = np.zeros((len(frames), NUM_JOINTS), np.float32)
        for t, pose in enumerate(frames):
            if pose is not None:
                joints[t], scores[t] = pose.joints, pose.scores
        return cls(joints, scores, sizes.pop(), float(fps))

    def __len__(self) -> int:
        return len(self.joints)

    @overload
    def __getitem__(self, index: int) -> Pose: ...

    @overload
    def __getitem__(self, index: slice) -> PoseClip: ...

    def __getitem__(self, index: int | slice) -> Pose | PoseClip:
        if isinstance(index, slice):
            return PoseClip(self.joints[index], self.scores[index], self.size, self.fps)
        return Pose(self.joints[index], self.scores[index], self.size)

    def __iter__(self) -> Iterator[Pose]:
        return (self[t] for t in range(len(self)))

    @property
    def present(self) -> NDArray[np.bool_]:
        """(T,): whether the person is in the frame at all."""
        return (self.scores > 0).any(1)


@dataclass(frozen=True)
class Sample:
    """One person as training sees them: R reference pictures and K targets of one clip, each with the drawing
    of its pose.

    In place of pictures (H, W, 3) uint8 there may be their latents as scd.latents keeps them: mean and
    standard deviation of the scaled posterior, (h, w, 2 C) float16.
    """

    references: NDArray[np.uint8]  # (R, H, W, 3) RGB
    reference_drawings: NDArray[np.uint8]  # (R, H, W, 3)
    targets: NDArray[np.uint8]  # (K, H, W, 3)
    target_drawings: NDArray[np.uint8]  # (K, H, W, 3)
    reference_tokens: NDArray[np.float16] | None = None  # (R, 1, D) kept context tokens
    heads: NDArray[np.uint8] | None = None  # (K, H, W, 1) where the targets' heads are: 1, else 0
    regions: NDArray[np.uint8] | None = None  # (K, H, W, 1) what is painted: 1, else 0; None = everything


@dataclass(frozen=True)
class Batch:
    """G samples with the same R and K, as uint8 tensors with channels first; latents as in Sample."""

    references: Tensor  # (G, R, 3, H, W), or latents (G, R, 2 C, h, w)
    reference_drawings: Tensor  # (G, R, 3, H, W)
    targets: Tensor  # (G, K, 3, H, W), or latents
    target_drawings: Tensor  # (G, K, 3, H, W)
    reference_tokens: Tensor | None = None  # (G, R, 1, D)
    heads: Tensor | None = None  # (G, K, 1, H, W)
    regions: Tensor | None = None  # (G, K, 1, H, W)
