"""Gaps by hand-made clips; the One-Euro filter against its own formula, and on trembling."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from scd.pose.smooth import MIN_CUTOFF, fill_gaps, in_words, one_euro
from scd.types import NUM_JOINTS, PoseClip, UserError


def moving(num_frames: int, fps: float = 10, absent=()) -> PoseClip:
    """Joint j is at (0.1 + t / 100, j / 200) with score 0.8 in frame t."""
    t, j = np.arange(num_frames)[:, None], np.arange(NUM_JOINTS)[None]
    joints = np.stack(np.broadcast_arrays(0.1 + t / 100, j / 200), -1).astype(np.float32)
    scores = np.full((num_frames, NUM_JOINTS), 0.8, np.float32)
    joints[list(absent)], scores[list(absent)] = 0, 0
    return PoseClip(joints, scores, (100, 100), fps)


def error_of(call, *arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- gaps ----


def test_a_whole_clip_stays_as_it_is():
    clip = moving(7)
    done = fill_gaps(clip)
    assert done.frames == ()
    np.testing.assert_array_equal(done.clip.joints, clip.joints)
    np.testing.assert_array_equal(done.clip.scores, clip.scores)


def test_short_gaps_become_lines_and_are_named():
    clip = moving(20, absent=(4, 8, 9, 10, 11, 12))
    before = clip.joints.copy()
    done = fill_gaps(clip)  # half a second at 10 frames per second: five frames
    assert done.frames == (4, 8, 9, 10, 11, 12)
    np.testing.assert_allclose(done.clip.joints, moving(20).joints, atol=1e-6)
    np.testing.assert_allclose(done.clip.scores, 0.8, atol=1e-6)
    np.testing.assert_array_equal(clip.joints, before)
    assert done.clip.fps == 10


def test_the_ends_are_held():
    done = fill_gaps(moving(12, absent=(0, 1, 10, 11)))
    assert done.frames == (0, 1, 10, 11)
    np.testing.assert_array_equal(done.clip.joints[[0, 1]], done.clip.joints[[2, 2]])
    np.testing.assert_array_equal(done.clip.joints[[10, 11]], done.clip.joints[[9, 9]])
    assert fill_gaps(moving(1)).frames == ()


def test_long_gaps_are_errors_that_name_the_frames():
    message = error_of(fill_gaps, moving(40, absent=range(10, 16)), name_for_errors="a.mp4")
    assert message == (
        "no person found in frames 10-15 of a.mp4, and only gaps of up to 0.5 s are filled: "
        "cut the clip there, or choose another --person"
    )
    message = error_of(fill_gaps, moving(40, absent=[*range(8), 20]))
    assert "in frames 0-7 of the driving clip" in message
    assert "begin later (--start 0.80)" in message
    message = error_of(fill_gaps, moving(40, absent=range(30, 40)))
    assert "in frames 30-39" in message
    assert "end earlier (--end 3.00)" in message
    many = [t for start in range(5, 95, 12) for t in range(start, start + 7)]
    assert "in frames 5-11, 17-23, 29-35, 41-47, 53-59 and 3 more stretches of" in error_of(
        fill_gaps, moving(110, absent=many)
    )
    assert "no person found in any of the 3 frame(s) of a.gif" in error_of(
        fill_gaps, moving(3, absent=range(3)), name_for_errors="a.gif"
    )


def test_how_long_is_a_choice_and_one_frame_is_always_short():
    clip = moving(20, absent=range(8, 12))
    assert "up to 0.2 s" in error_of(fill_gaps, clip, 0.2)
    assert fill_gaps(clip, 0.4).frames == (8, 9, 10, 11)
    assert fill_gaps(moving(9, fps=1, absent=[4])).frames == (4,)
    assert len(fill_gaps(moving(60, fps=60, absent=range(10, 40))).frames) == 30


def test_dropouts_of_single_joints():
    clip = moving(20)
    clip.scores[5:9, 7], clip.joints[5:9, 7] = 0.1, 0.5  # unsure for a while: a guess elsewhere
    clip.scores[3:12, 9], clip.joints[3:12, 9] = 0, 0  # too long
    clip.scores[:2, 11], clip.joints[:2, 11] = 0, 0  # not there yet
    done = fill_gaps(clip)
    assert done.frames == ()
    truth = moving(20)
    np.testing.assert_allclose(done.clip.joints[:, 7], truth.joints[:, 7], atol=1e-6)
    np.testing.assert_allclose(done.clip.scores[:, 7], 0.8, atol=1e-6)
    assert not done.clip.scores[3:12, 9].any()
    assert not done.clip.scores[:2, 11].any()
    np.testing.assert_allclose(done.clip.joints[12:, 9], truth.joints[12:, 9])


def test_frames_in_words():
    assert in_words([]) == ""
    assert in_words([3]) == "3"
    assert in_words((3, 4, 5, 9, 11, 12)) == "3-5, 9, 11-12"


# ---- One-Euro ----


def by_hand(xs, fps, min_cutoff, beta, speed_cutoff=1.0):
    """The paper's algorithm for one number, written as the paper has it."""

    def alpha(cutoff):
        tau, period = 1 / (2 * np.pi * cutoff), 1 / fps
        return 1 / (1 + tau / period)

    filtered, speed, result = xs[0], 0.0, [xs[0]]
    for before, x in pairwise(xs):
        speed = alpha(speed_cutoff) * (x - before) * fps + (1 - alpha(speed_cutoff)) * speed
        share = alpha(min_cutoff + beta * abs(speed))
        filtered = share * x + (1 - share) * filtered
        result.append(filtered)
    return np.array(result)


def one_joint(xs, scores=None, fps: float = 30) -> PoseClip:
    """The nose moves in x; two still joints give the person a size of 100 pixels."""
    num_frames = len(xs)
    joints = np.zeros((num_frames, NUM_JOINTS, 2), np.float32)
    all_scores = np.zeros((num_frames, NUM_JOINTS), np.float32)
    joints[:, 1], joints[:, 10] = (0.5, 0.0), (0.5, 1.0)
    joints[:, 0, 0] = xs
    joints[:, 0, 1] = 0.5
    all_scores[:, [1, 10]] = 1
    all_scores[:, 0] = 1 if scores is None else scores
    return PoseClip(joints * (all_scores[..., None] > 0), all_scores, (100, 100), fps)


def test_it_is_the_papers_filter():
    generator = np.random.default_rng(0)
    xs = 0.5 + 0.3 * np.sin(np.arange(40) / 5) + 0.01 * generator.standard_normal(40)
    for settings in ((1.0, 0.0), (0.7, 3.0)):
        for fps in (12.0, 30.0):
            clip = one_euro(one_joint(xs, fps=fps), *settings, both_ways=False)
            np.testing.assert_allclose(clip.joints[:, 0, 0], by_hand(xs, fps, *settings), atol=1e-5)
            both = one_euro(one_joint(xs, fps=fps), *settings)
            back = by_hand(xs[::-1], fps, *settings)[::-1]
            np.testing.assert_allclose(
                both.joints[:, 0, 0], (by_hand(xs, fps, *settings) + back) / 2, atol=1e-5
            )


def test_scores_size_rate_and_still_joints_stay():
    clip = one_joint(np.linspace(0.2, 0.8, 20))
    before = clip.joints.copy()
    done = one_euro(clip)
    np.testing.assert_array_equal(done.scores, clip.scores)
    assert (done.size, done.fps) == (clip.size, clip.fps)
    np.testing.assert_allclose(done.joints[:, [1, 10]], clip.joints[:, [1, 10]], atol=1e-6)
    assert not done.joints[:, 2:10].any()
    np.testing.assert_array_equal(clip.joints, before)
    empty = PoseClip(np.zeros((3, 128, 2), np.float32), np.zeros((3, 128), np.float32), (9, 9), 30)
    assert not one_euro(empty).joints.any()
    assert len(one_euro(clip[:1])) == 1


def test_trembling_falls_and_motion_stays():
    generator = np.random.default_rng(1)
    still = 0.5 + 0.005 * generator.standard_normal(200)
    calm = one_euro(one_joint(still)).joints[:, 0, 0]
    assert np.abs(np.diff(calm)).mean() < 0.4 * np.abs(np.diff(still)).mean()
    path = 0.5 + 0.4 * np.sin(2 * np.pi * np.arange(200) / 40)  # a wave a head's height wide, in 1.3 s
    assert np.abs(one_euro(one_joint(path)).joints[:, 0, 0] - path)[5:-5].max() < 0.02
    late = one_euro(one_joint(path), both_ways=False).joints[:, 0, 0]
    assert np.abs(late - path)[5:-5].max() > 0.02


def test_unsure_joints_are_calmed_more():
    generator = np.random.default_rng(2)
    still = 0.5 + 0.005 * generator.standard_normal(200)
    steps = [np.abs(np.diff(one_euro(one_joint(still, s)).joints[:, 0, 0])).mean() for s in (1.0, 0.5, 0.2)]
    assert steps[0] > 1.3 * steps[1] > 1.3 * 1.3 * steps[2]


def test_it_begins_anew_after_absence_and_at_a_cut():
    xs = np.concatenate([np.full(10, 0.2), np.zeros(5), np.full(10, 0.8)])
    scores = np.concatenate([np.ones(10), np.zeros(5), np.ones(10)])
    done = one_euro(one_joint(xs, scores)).joints[:, 0, 0]
    np.testing.assert_allclose(done, xs, atol=1e-6)
    cut = moving(20)
    cut.joints[10:, :, 0] += 0.6  # everybody is elsewhere
    np.testing.assert_allclose(one_euro(cut).joints[9:11], cut.joints[9:11], atol=0.011)
    jump = one_joint(np.concatenate([np.full(10, 0.2), np.full(10, 0.8)]))  # one joint alone: no cut
    assert 0.2 < one_euro(jump, both_ways=False).joints[10, 0, 0] < 0.79


def test_it_knows_no_picture_size():
    """The same person, seen half as large in a picture of another shape, is filtered the same."""
    generator = np.random.default_rng(3)
    xs = 0.5 + 0.2 * np.sin(np.arange(60) / 6) + 0.01 * generator.standard_normal(60)
    clip = one_joint(xs)
    small = PoseClip(clip.joints * np.array([0.25, 0.5], np.float32), clip.scores, (100, 200), 30)
    np.testing.assert_allclose(
        one_euro(small).joints, one_euro(clip).joints * np.array([0.25, 0.5]), atol=1e-6
    )


@pytest.mark.parametrize("wrong", [{"min_cutoff": 0}, {"beta": -1}, {"speed_cutoff": 0}])
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match="cutoffs are above 0"):
        one_euro(moving(3), **wrong)
    assert MIN_CUTOFF > 0


def test_on_detected_dancers():
    """The numbers beside the settings come from 18 such clips; this one has 16 frames."""
    from scd.pose.detect import get_detector
    from scd.pose.track import track_person
    from scd.types import BODY
    from scd.world import Scene

    views = Scene.from_seed(2).clip("wave", 16, 30, 256)
    seen = track_person((view.image for view in views), get_detector())
    clip = fill_gaps(PoseClip.from_poses([one.pose for one in seen], 30)).clip
    truth = PoseClip.from_poses([view.pose for view in views], 30)
    sure = ((truth.scores >= 0.9) & (clip.scores >= 0.3))[:, BODY]
    both = sure[1:] & sure[:-1]

    def trembling(one: PoseClip) -> float:
        steps = np.diff(one.joints[:, BODY], axis=0) - np.diff(truth.joints[:, BODY], axis=0)
        return float(np.hypot(steps[..., 0], steps[..., 1])[both].mean())

    def wrong(one: PoseClip) -> float:
        return float(np.hypot(*np.moveaxis((one.joints - truth.joints)[:, BODY], -1, 0))[sure].mean())

    calm = one_euro(clip)
    assert trembling(calm) < 0.75 * trembling(clip)
    assert wrong(calm) < 1.1 * wrong(clip)
