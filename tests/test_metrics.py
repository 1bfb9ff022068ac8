"""Measures against values worked out by hand."""

import numpy as np
import pytest

from scd.metrics.image import detail, gradient, psnr, ssim
from scd.metrics.person import pck
from scd.types import NUM_JOINTS, Pose


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
