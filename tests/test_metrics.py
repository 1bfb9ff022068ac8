"""Measures against values worked out by hand."""

import numpy as np
import pytest

import scd
from scd.evaluate_clips import FIRST_SEED, held_out_clips, paint_clip, seam_cases, window_borders
from scd.metrics.image import detail, gradient, psnr, ssim
from scd.metrics.person import pck
from scd.metrics.video import jitter, motion, seam
from scd.types import NUM_JOINTS, Pose
from scd.windows import windows


def flat(value, size=(20, 30)):
    return np.full((*size, 3), value, np.uint8)


def test_psnr_by_hand_and_without_overflow():
    assert psnr(flat(0), flat(255)) == pytest.approx(0.0)
    assert psnr(flat(10), flat(20)) == pytest.approx(20 * np.log10(255 / 10))
    assert psnr(flat(20), flat(10)) == psnr(flat(10), flat(20)), "uint8 must not wrap around"
    assert psnr(flat(7), flat(7)) == pytest.approx(10 * np.log10(255**2 * 12))
    mask = np.zeros((20, 30), bool)
    mask[:5] = True
    picture = flat(10)
    picture[:5] = 60
    assert psnr(picture, flat(10), mask) == pytest.approx(20 * np.log10(255 / 50))
    assert psnr(picture, flat(10), ~mask) > 58
    with pytest.raises(ValueError, match="empty mask"):
        psnr(picture, picture, np.zeros((20, 30), bool))


def test_detail_counts_horizontal_edges_inside_the_mask():
    truth = flat(0)
    truth[:, ::2] = 100
    half = flat(0)
    half[:, ::2] = 50
    mask = np.ones((20, 30), bool)
    assert gradient(truth, mask) == 100
    assert detail(half, truth, mask) == 0.5
    assert detail(truth, truth, mask) == 1
    mask[:, 15:] = False
    half[:, 15:] = 255
    assert detail(half, truth, mask) == 0.5


def test_ssim_ends():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert ssim(picture, picture) == pytest.approx(1)
    assert ssim(picture, rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) < 0.2


class Says:
    def __init__(self, *poses):
        self.poses, self.sizes = list(poses), []

    def detect(self, image):
        self.sizes.append(image.shape)
        return self.poses


def test_pck():
    rng = np.random.default_rng(0)
    joints = rng.uniform(0.2, 0.8, (NUM_JOINTS, 2)).astype(np.float32)
    truth = Pose(joints, np.ones(NUM_JOINTS, np.float32), (128, 64))
    visible = np.ones(NUM_JOINTS, bool)
    picture = flat(0, (128, 64))
    detector = Says(truth)
    assert pck(picture, truth, visible, detector) == 1
    assert detector.sizes == [(512, 256, 3)]
    assert pck(picture, truth, visible, Says()) == 0
    height = np.ptp(joints[:18, 1])
    moved = joints.copy()
    moved[:9, 1] += 0.11 * height
    moved[9:18, 1] += 0.09 * height
    off = Pose(moved, truth.scores, truth.size)
    assert pck(picture, truth, visible, Says(off)) == 0.5
    assert pck(picture, truth, visible, Says(off, truth)) == 1
    visible[:9] = False
    assert pck(picture, truth, visible, Says(off)) == 1
    sideways = joints.copy()
    sideways[:, 0] += 0.15 * height  # a fraction of the width, which is half the height
    visible[:] = True
    assert pck(picture, truth, visible, Says(Pose(sideways, truth.scores, truth.size))) == 1


# ---- clips: exact values of made-up ones ----


def clips(*levels):
    """Clips of grey frames (T, 4, 4, 3), one for each row of levels, and the mask of a person in the left
    half."""
    frames = [
        np.broadcast_to(np.array(row, np.uint8)[:, None, None, None], (len(row), 4, 4, 3)) for row in levels
    ]
    masks = np.zeros((len(levels[0]), 4, 4), bool)
    masks[:, :, :2] = True
    return *frames, masks


def test_jitter_is_what_changes_of_the_error():
    """A constant error does not tremble; a still picture scores the truth's motion; only people count."""
    truth, darker, still, masks = clips((10, 30, 20), (5, 25, 15), (10, 10, 10))
    assert jitter(truth, truth, masks) == 0
    assert jitter(darker, truth, masks) == 0
    assert jitter(still, truth, masks) == 15  # 20 and 10
    elsewhere = np.array(truth)
    elsewhere[1, :, 2:] = 255
    assert jitter(elsewhere, truth, masks) == 0
    masks[0] = False
    masks[0, 0, 3] = True  # who leaves a place, or comes to it, counts there
    assert jitter(elsewhere, truth, masks) > 0


def test_motion_is_a_share_of_the_truths():
    truth, half, still, masks = clips((10, 30, 10), (10, 20, 10), (50, 50, 50))
    assert [motion(y, truth, masks) for y in (truth, half, still)] == [1, 0.5, 0]


def test_a_seam_is_a_change_larger_than_elsewhere():
    even, jump, rest, _ = clips((0, 4, 8, 12, 16), (0, 4, 8, 22, 26), (7, 7, 7, 7, 7))
    assert seam(even, {3}) == 1
    assert seam(jump, {3}) == (14 + 0.5) / (4 + 0.5)
    assert seam(jump, {1}) < 1
    assert seam(rest, {2}) == 1
    for borders in (set(), {1, 2, 3, 4}):
        with pytest.raises(ValueError, match="no seam can be measured"):
            seam(even, borders)


def test_the_borders_are_where_windows_of_the_last_step_begin_or_end():
    last = windows(20, 8, 4, 9)
    inner = {edge for w in last for edge in (w.start, w.stop)} - {0, 20}
    assert window_borders(20, 8, 4, 10) == inner
    assert len(inner) >= 4
    assert window_borders(8, 8, 4, 10) == set()


@pytest.mark.slow
def test_no_seam_shows_in_the_embedded_models_clips():
    """Three windows and more, moving and standing: 1.1 at most."""
    pipe = scd.load(device="cpu")
    case = held_out_clips(1, 2, 128)[0]
    for clip in seam_cases(case, 20, FIRST_SEED + 1, 128):
        painted = paint_clip(pipe, clip, clip.poses, num_inference_steps=6, window=8, overlap=4)
        assert seam(painted, window_borders(20, 8, 4, 6)) <= 1.1
