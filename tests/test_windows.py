"""Windows of long clips: they cover, end with the clip, overlap, their weights sum to one, at any shift."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scd.windows import window_starts, windows


@given(
    num_frames=st.integers(1, 400),
    length=st.integers(1, 32),
    overlap=st.integers(0, 31),
    step=st.integers(0, 60),
)
def test_every_frame_is_covered_once(num_frames, length, overlap, step):
    if overlap >= length:
        return
    made = windows(num_frames, length, overlap, step)
    total = torch.zeros(num_frames)
    for window in made:
        assert 0 <= window.start < window.stop <= num_frames, "never around the end"
        assert window.stop - window.start == min(length, num_frames), "one shape for the device"
        assert (window.weights > 0).all()
        total[window.frames] += window.weights
    assert torch.allclose(total, torch.ones(num_frames), atol=1e-6)
    assert made[0].start == 0
    assert made[-1].stop == num_frames
    for before, after in pairwise(made):
        assert before.start < after.start
        assert before.stop - after.start >= overlap


def test_a_clip_shorter_than_a_window_is_one_window_of_weight_one():
    (window,) = windows(7, 24, 4)
    assert (window.start, window.stop) == (0, 7)
    assert torch.equal(window.weights, torch.ones(7))


def test_seams_move_between_steps():
    seams = [tuple(w.start for w in windows(100, 24, 4, step))[1:-1] for step in range(10)]
    assert len(set(seams)) >= 8


def test_weights_are_smooth():
    """A frame's share changes by at most a third from one frame to the next: no seam to see."""
    for window in windows(100, 24, 6, 3):
        assert window.weights.diff().abs().max() < 0.34


def test_an_overlap_needs_a_stride():
    with pytest.raises(ValueError, match="windows of 8 frames cannot overlap by 8"):
        window_starts(20, 8, 8)
