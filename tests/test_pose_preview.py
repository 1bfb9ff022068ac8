"""The preview: three pictures side by side, boxes and numbers where they belong; and real pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scd.pose.preview import AMBER, BAR, GAP, GREEN, GREY, preview_frames
from scd.pose.track import Seen
from scd.types import BODY, NUM_JOINTS, Pose, PoseClip

REAL = Path(__file__).parents[2] / "shared" / "real" / "animation"


def standing(x: float, size=(120, 160)) -> Pose:
    joints, scores = np.zeros((NUM_JOINTS, 2), np.float32), np.zeros(NUM_JOINTS, np.float32)
    joints[BODY] = np.stack([x + np.linspace(-0.1, 0.1, 18), np.linspace(0.3, 0.8, 18)], -1)
    scores[BODY] = 1
    return Pose(joints, scores, size)


def shows(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(-1).sum())


def make(num_frames: int = 12, fps: float = 4, filled=(5,), height: int = 120):
    frames = [np.full((120, 160, 3), 90, np.uint8) for _ in range(num_frames)]
    left, right = standing(0.25), standing(0.7)
    seen = [Seen(None), Seen(right, (left, right)), *[Seen(right)] * (num_frames - 2)]
    driving = PoseClip.from_poses([right] * num_frames, fps)
    moved = PoseClip.from_poses([standing(0.5, (200, 101))] * num_frames, fps)
    reference = np.full((200, 101, 3), 60, np.uint8)
    return preview_frames(
        reference, standing(0.5, (200, 101)), iter(frames), seen, driving, moved, filled, height
    )


def test_three_pictures_side_by_side():
    pictures = list(make())
    assert len(pictures) == 12
    width = 61 + 160 + 61 + 2 * GAP
    for picture in pictures:
        assert picture.dtype == np.uint8
        assert picture.shape == (BAR + 120, width + width % 2, 3)
    reference, driver, moved = np.split(pictures[0][BAR:], [61 + GAP // 2, 61 + 160 + GAP + GAP // 2], 1)
    assert shows(reference, (60, 60, 60)) > 2000
    assert shows(driver, (90, 90, 90)) > 8000
    assert shows(moved, (0, 0, 0)) > 4000
    for picture in (reference, driver, moved):
        assert (picture[..., 0] > picture[..., 1:].max(-1).astype(int) + 90).any()  # the nose, red
    assert (pictures[0][:BAR] == 255).any()  # labels


def test_boxes_and_numbers():
    pictures = list(make())
    drivers = [picture[BAR:, 61 + GAP : 61 + GAP + 160] for picture in pictures]
    for t, picture in enumerate(drivers):
        assert bool(shows(picture, AMBER)) == (t == 5)
        assert bool(shows(picture, GREEN)) == (t != 5)
        # The other one is named for a second from the first frame with people on.
        assert bool(shows(picture, GREY)) == (1 <= t < 5)
    numbered, plain = drivers[1], drivers[8]
    assert shows(numbered, GREEN) > shows(plain, GREEN) + 100  # the number's field
    assert shows(numbered[:, :80], GREEN) == 0
    assert shows(numbered[:, 80:], GREY) == 0


def test_frames_stream_and_sizes_are_even():
    pictures = make(num_frames=30)
    assert next(pictures).shape[0] % 2 == 0
    odd = next(make(height=121))
    assert odd.shape[0] % 2 == odd.shape[1] % 2 == 0
    with pytest.raises(ValueError, match="argument"):
        list(
            preview_frames(
                np.zeros((9, 9, 3), np.uint8),
                standing(0.5),
                [np.zeros((120, 160, 3), np.uint8)],
                [Seen(None)] * 2,
                PoseClip.from_poses([standing(0.5)] * 2, 4),
                PoseClip.from_poses([standing(0.5)] * 2, 4),
            )
        )


def test_nobody_seen_whole():
    """Poses from a file: nothing was tracked."""
    clip = PoseClip.from_poses([standing(0.5)] * 3, 4)
    frames = [np.zeros((120, 160, 3), np.uint8)] * 3
    picture, *_ = preview_frames(frames[0], standing(0.5), frames, [], clip, clip)
    assert shows(picture[BAR:], GREY) == 0
    assert shows(picture[BAR:], GREEN) > 0


@pytest.mark.skipif(not REAL.is_dir(), reason="the real pictures are not here")
def test_a_real_driver_on_a_real_reference():
    """Four frames of a man as a clip, on a figure in another suit and on the man's own picture."""
    import cv2

    from scd.media import read_image
    from scd.pose.alignment import alignment
    from scd.pose.detect import detect_one, get_detector
    from scd.pose.retarget import retarget
    from scd.pose.smooth import fill_gaps
    from scd.pose.track import track_person

    detector = get_detector()
    frames = [
        cv2.resize(read_image(REAL / f"man_frame{i}.png"), (241, 323)).astype(np.uint8) for i in (1, 2, 3, 4)
    ]
    seen = list(track_person(iter(frames), detector))
    driving = fill_gaps(PoseClip.from_poses([one.pose for one in seen], 2)).clip
    for name in ("figure", "man"):
        image = read_image(REAL / f"{name}_reference.png")
        own = detect_one(image, detector=detector)
        match = alignment(driving, own)
        assert match.enough, match.reasons
        moved = retarget(driving, own)
        ankles = moved.joints[:, [10, 13], 1].max(1)
        np.testing.assert_allclose(ankles, own.joints[[10, 13], 1].max(), atol=0.06)
        assert len(list(preview_frames(image, own, frames, seen, driving, moved))) == 4
    woman = detect_one(read_image(REAL / "woman_reference.png"), detector=detector)
    match = alignment(driving, woman)
    assert not match.enough
    assert match.reasons[0].startswith("the reference is cut at the hips, the driver shows legs and feet")
