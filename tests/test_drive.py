"""What drives a clip: the driver's motion, smoothed, on the body of the reference that fits."""

from __future__ import annotations

import numpy as np
import pytest

from scd import world
from scd.animate import make_drive
from scd.config import replace
from scd.pose.retarget import retarget, with_face
from scd.pose.smooth import fill_gaps, one_euro
from scd.pose.track import Seen
from scd.types import PoseClip

FPS = 12.5


@pytest.fixture(scope="module")
def driver():
    """Trembling, as detectors see, without the person in the fourth frame."""
    views = world.Scene.from_seed(5).clip("dance", 8, FPS, 96)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.004, (8, 128, 2)).astype(np.float32)
    poses = [replace(v.pose, joints=v.pose.joints + n) for v, n in zip(views, noise, strict=True)]
    return [None if i == 3 else pose for i, pose in enumerate(poses)]


@pytest.fixture(scope="module")
def people():
    """A portrait, and a whole person of other proportions than the driver's."""
    whole = world.Scene.from_seed(3).view(0, size=96).pose
    scores = whole.scores.copy()
    scores[[3, 4, 6, 7, 8, 9, 10, 11, 12, 13]] = 0
    portrait = replace(whole, joints=whole.joints * 1.6 - 0.3, scores=scores)
    return portrait, whole


def same(a, b):
    return np.array_equal(a.joints, b.joints) and np.array_equal(a.scores, b.scores)


def test_a_drive_is_filled_smoothed_and_brought_to_the_reference(driver, people):
    filled = fill_gaps(PoseClip.from_poses(driver, FPS)).clip
    smooth = one_euro(filled)
    assert not same(smooth, filled)
    whole = people[1]

    def drive(**options):
        return make_drive([Seen(pose) for pose in driver], FPS, [whole], **options)

    made = drive()
    assert made.filled == (3,)
    assert same(made.driving, smooth)
    assert same(made.retargeted, retarget(smooth, whole))
    assert not same(made.retargeted, smooth), "whose body is another"
    assert same(drive(smooth=False).driving, filled)
    assert same(drive(smooth=False).retargeted, retarget(filled, whole))
    for face in ("full", "eyes-mouth", "none"):
        assert same(drive(face=face).retargeted, retarget(smooth, whole, face))
        driven = drive(proportions="driver", face=face)
        assert same(driven.retargeted, with_face(smooth, face))
        assert same(driven.driving, smooth)


def test_of_two_references_the_one_that_fits_gives_the_body(driver, people, caplog):
    made = make_drive([Seen(pose) for pose in driver], FPS, people)
    assert made.reference == 1
    assert same(made.retargeted, retarget(made.driving, people[1]))
    assert not same(made.retargeted, retarget(made.driving, people[0]))
    first = make_drive([Seen(pose) for pose in driver], FPS, people[::-1])
    assert first.reference == 0
    assert same(first.retargeted, made.retargeted)
