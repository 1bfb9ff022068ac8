"""PoseClip: poses in a row, with and without the person."""

import dataclasses

import numpy as np
import pytest

from scd.types import NUM_JOINTS, Pose, PoseClip


def pose(value: float, size=(20, 30)) -> Pose:
    return Pose(np.full((NUM_JOINTS, 2), value, np.float32), np.full(NUM_JOINTS, value, np.float32), size)


def test_a_clip_is_made_of_poses_and_gives_them_back():
    clip = PoseClip.from_poses([pose(0.1), None, pose(0.3)], 25)
    assert len(clip) == 3
    assert clip.size == (20, 30)
    assert clip.fps == 25
    assert clip.joints.shape == (3, 128, 2)
    assert clip.scores.shape == (3, 128)
    assert clip.joints.dtype == clip.scores.dtype == np.float32
    assert clip.present.tolist() == [True, False, True]
    assert not clip[1].joints.any()
    assert not clip[1].scores.any()
    for t, value in ((0, 0.1), (2, 0.3), (-1, 0.3)):
        assert isinstance(clip[t], Pose)
        np.testing.assert_array_equal(clip[t].joints, np.float32(value))
        assert clip[t].size == (20, 30)
    part = clip[1:]
    assert isinstance(part, PoseClip)
    assert len(part) == 2
    assert part.fps == 25
    assert [bool(one.scores.any()) for one in clip] == [True, False, True]
    with pytest.raises(dataclasses.FrozenInstanceError):
        clip.fps = 3  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(IndexError):
        clip[3]


def test_a_clip_of_nobody_needs_a_size():
    assert PoseClip.from_poses([None], 30, size=(8, 9)).size == (8, 9)
    with pytest.raises(ValueError, match="share one size"):
        PoseClip.from_poses([None], 30)
    with pytest.raises(ValueError, match="share one size"):
        PoseClip.from_poses([pose(0.1), pose(0.1, (9, 9))], 30)


@pytest.mark.parametrize(
    ("joints", "scores", "fps", "message"),
    [
        ((2, 128, 2), (3, 128), 30, "holds joints"),
        ((2, 18, 2), (2, 18), 30, "holds joints"),
        ((0, 128, 2), (0, 128), 30, "at least one frame"),
        ((1, 128, 2), (1, 128), 0, "frame rate above 0"),
        ((1, 128, 2), (1, 128), float("inf"), "frame rate above 0"),
        ((1, 128, 2), (1, 128), float("nan"), "frame rate above 0"),
    ],
)
def test_wrong_clips(joints, scores, fps, message):
    with pytest.raises(ValueError, match=message):
        PoseClip(np.zeros(joints, np.float32), np.zeros(scores, np.float32), (9, 9), fps)


def test_the_name_is_public():
    import scd

    assert scd.PoseClip is PoseClip
