"""Between the world's exact poses and what a detector would have given."""

from __future__ import annotations

import numpy as np

from scd.types import BODY, FACE, LEFT_HAND, RIGHT_HAND, Pose

_HEAD = (0, 14, 15, 16, 17)  # nose, eyes, ears
_SEEN = 0.75  # the world scores 1 what is seen and 0.5 what is hidden


def as_detected(pose: Pose, keep_head: bool = False) -> Pose:
    """Leave out what no detector finds: a face or hand less than half seen, and hidden points of the head.

    The missing face tells front from back: its dots would look the same from behind. MediaPipe guesses nose
    and eyes from behind, OpenPose does not: `keep_head` keeps them.
    """
    scores = pose.scores.copy()
    for part in (FACE, LEFT_HAND, RIGHT_HAND):
        if (scores[part] > _SEEN).mean() < 0.5:
            scores[part] = 0
    if not keep_head:
        scores[list(_HEAD)] *= scores[list(_HEAD)] > _SEEN
    return Pose(pose.joints, scores, pose.size)


def seen_in_training(pose: Pose, errors: np.random.Generator | None) -> Pose:
    """The world's exact pose as a detector would have given it, with a detector's errors unless None."""
    if errors is None:
        return as_detected(pose)
    return perturb(as_detected(pose, keep_head=errors.random() < 0.5), errors)


def perturb(pose: Pose, rng: np.random.Generator) -> Pose:
    """Detector errors for training: joints off by 0.6 % of the picture (half of MediaPipe's median error on
    drawn people, so that the model still trusts the drawing), now and then a missing face, hand or limb
    end."""
    joints = pose.joints + rng.normal(0, 0.006, (1, 2)).astype(np.float32) * (rng.random() < 0.3)
    joints[BODY] += rng.normal(0, 0.006, (18, 2)).astype(np.float32)
    scores = pose.scores.copy()
    for part, chance in ((FACE, 0.1), (LEFT_HAND, 0.15), (RIGHT_HAND, 0.15)):
        if rng.random() < chance:
            scores[part] = 0
    if rng.random() < 0.1:
        scores[rng.integers(0, 18)] = 0
    return Pose(joints, scores, pose.size)
