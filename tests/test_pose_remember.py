"""A search for poses that was stopped goes on where it was, to the same poses."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from safetensors import SafetensorError

from scd.media import open_clip, write_clip
from scd.pose import cache, detect, find, remember
from scd.pose.find import find_poses, pose_path
from scd.pose.remember import RememberingDetector
from scd.types import NUM_JOINTS, Pose, UserError


class Counting:
    """Finds one person around the brightest pixel (nobody in a dark picture, two in one with a blue corner),
    and notes the shapes of what it was shown."""

    def __init__(self, stop: int = 10**9) -> None:
        self.shapes, self.stop = [], stop

    def detect(self, image):
        if len(self.shapes) == self.stop:
            raise KeyboardInterrupt
        height, width = image.shape[:2]
        self.shapes.append((height, width))
        bright = image[..., 0].astype(int)
        if bright.max() < 200:
            return []
        row, column = np.unravel_index(bright.argmax(), bright.shape)
        spread = np.random.default_rng(7).uniform(-8, 8, (NUM_JOINTS, 2))
        joints = ((np.array([column, row]) + spread) / (width, height)).clip(0, 1).astype(np.float32)
        pose = Pose(joints, np.full(NUM_JOINTS, 0.9, np.float32), (height, width))
        blue = image[0, 0, 2] == 255
        return [pose, Pose(joints[::-1].copy(), pose.scores, pose.size)] if blue else [pose]


def picture(t):
    """Somebody who walks to the right, and is gone in frames 4 and 5."""
    image = np.full((64, 80, 3), 60, np.uint8)
    if t not in (4, 5):
        image[30, 20 + 2 * t] = 255
    if t == 0:
        image[0, 0] = (0, 0, 255)
    return image


PICTURES = [picture(t) for t in range(9)]


@pytest.fixture
def clip(tmp_path):
    write_clip(tmp_path / "clip", PICTURES, 10.0)
    return open_clip(tmp_path / "clip", fps=10.0)


def stopped_after_five(path):
    with suppress(KeyboardInterrupt), RememberingDetector(Counting(stop=5), path, "clip") as detector:
        for image in PICTURES:
            detector.detect(image)
    assert path.is_file()


def search(clip, folder, monkeypatch, detector):
    monkeypatch.setattr(detect, "get_detector", lambda name: detector)
    return find_poses(clip, cache=folder)


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one.pose is None) == (other.pose is None)
        for a, b in zip([one.pose, *one.people], [other.pose, *other.people], strict=True):
            if b is not None:
                np.testing.assert_array_equal(a.joints, b.joints)
                np.testing.assert_array_equal(a.scores, b.scores)


@pytest.mark.parametrize("stop", range(1, 10))
def test_a_stopped_search_goes_on_and_finds_the_same(clip, tmp_path, monkeypatch, stop):
    whole = Counting()
    expected = search(clip, tmp_path / "whole", monkeypatch, whole)
    assert {len(one.people) for one in expected} >= {0, 2}
    assert [t for t, one in enumerate(expected) if one.pose is None] == [4, 5]
    assert set(whole.shapes) > {(64, 80)}, "the detector saw the person's square, too"

    first, second = Counting(stop), Counting()
    with pytest.raises(KeyboardInterrupt):
        search(clip, tmp_path / "kept", monkeypatch, first)
    part = pose_path(clip, cache=tmp_path / "kept").with_suffix(".part")
    assert part.is_file()
    found = search(clip, tmp_path / "kept", monkeypatch, second)

    assert first.shapes + second.shapes == whole.shapes, "nothing is asked twice"
    same(found, expected)
    assert [path.suffix for path in part.parent.iterdir()] == [".npz"], "what was kept is gone at the end"


@pytest.mark.parametrize("error", [UserError("stopped"), OSError(5, "lost"), KeyboardInterrupt()])
def test_whatever_stops_it_nothing_is_lost(clip, tmp_path, monkeypatch, error):
    detector, frames = Counting(), iter(range(1, 10))

    def advance():
        if next(frames) == 7:
            raise error

    monkeypatch.setattr(detect, "get_detector", lambda name: detector)
    with pytest.raises(type(error)):
        find_poses(clip, progress=advance, cache=tmp_path / "kept")
    done, detector.shapes = len(detector.shapes), []
    find_poses(clip, cache=tmp_path / "kept")
    whole = Counting()
    search(clip, tmp_path / "whole", monkeypatch, whole)
    assert done + len(detector.shapes) == len(whole.shapes)


def test_stopped_while_the_result_is_written(clip, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "write_poses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(clip, tmp_path / "kept", monkeypatch, Counting())
    monkeypatch.undo()
    again = Counting()
    search(clip, tmp_path / "kept", monkeypatch, again)
    assert not again.shapes


def test_a_killed_search_has_what_was_written_on_the_way(tmp_path):
    killed = RememberingDetector(Counting(), tmp_path / "a.part", "clip", pause=0)
    answers = [killed.detect(image) for image in PICTURES]  # and no end: as after a kill
    again = Counting()
    resumed = RememberingDetector(again, tmp_path / "a.part", "clip")
    for image, answer in zip(PICTURES, answers, strict=True):
        found = resumed.detect(image)
        assert len(found) == len(answer)
        for pose, known in zip(found, answer, strict=True):
            np.testing.assert_array_equal(pose.joints, known.joints)
            assert pose.size == (64, 80)
    assert not again.shapes


def test_other_pictures_are_not_answered_from_the_file(tmp_path):
    stopped_after_five(tmp_path / "a.part")
    changed = [picture(t) if t != 2 else picture(8) for t in range(9)]
    again, fresh = Counting(), Counting()
    with RememberingDetector(again, tmp_path / "a.part", "clip") as other:
        for image in changed:
            for pose, right in zip(other.detect(image), fresh.detect(image), strict=True):
                np.testing.assert_array_equal(pose.joints, right.joints)
    assert len(again.shapes) == 7, "the two before the changed one are known"


@pytest.mark.parametrize("damage", [b"", b"nonsense of some length", None])
def test_a_damaged_file_costs_time_only(tmp_path, damage):
    path = tmp_path / "a.part"
    stopped_after_five(path)
    path.write_bytes(path.read_bytes()[:-40] if damage is None else damage)
    again = Counting()
    with RememberingDetector(again, path, "clip") as other:
        assert [len(other.detect(image)) for image in PICTURES] == [2, 1, 1, 1, 0, 0, 1, 1, 1]
    assert len(again.shapes) == 9


def test_nobody_in_any_frame_leaves_nothing(tmp_path, monkeypatch):
    write_clip(tmp_path / "dark", [picture(4)] * 9, 10.0)
    dark = open_clip(tmp_path / "dark", fps=10.0)
    with pytest.raises(KeyboardInterrupt):
        search(dark, tmp_path / "kept", monkeypatch, Counting(stop=5))
    assert list((tmp_path / "kept").rglob("*.part"))
    with pytest.raises(UserError, match="no person found in any of the 9"):
        search(dark, tmp_path / "kept", monkeypatch, Counting())
    assert not list((tmp_path / "kept").rglob("*.*"))


def test_a_search_that_was_stopped_at_once_leaves_nothing(clip, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        search(clip, tmp_path / "kept", monkeypatch, Counting(stop=0))
    assert not list(tmp_path.joinpath("kept").rglob("*.*"))


@pytest.mark.parametrize("error", [None, SafetensorError("File too large"), OSError(28, "No space left")])
def test_what_cannot_be_kept_stops_no_search(clip, tmp_path, monkeypatch, error):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "poses").write_text("a file in the way")

    def full(*_):
        raise error

    if error is not None:
        monkeypatch.setattr(remember, "save_file", full)
    monkeypatch.setattr(find, "RememberingDetector", lambda *given: RememberingDetector(*given, pause=0))
    folder = tmp_path / ("kept" if error is None else "free")
    assert len(search(clip, folder, monkeypatch, Counting())) == 9
    with pytest.raises(KeyboardInterrupt):
        search(clip, tmp_path / "other", monkeypatch, Counting(stop=4))
