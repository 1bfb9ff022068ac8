"""A search for poses that was stopped goes on where it was, to the same poses."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

from scd.media import open_clip, write_clip
from scd.pose import detect, find
from scd.pose.find import find_poses, pose_path
from scd.pose.remember import RememberingDetector
from scd.types import NUM_JOINTS, Pose, UserError


class Counting:
    """Finds one person whose joints are the picture's mean, and counts how often it was asked."""

    def __init__(self, stop: int = 10**9, nobody: bool = False) -> None:
        self.asked, self.stop, self.nobody = 0, stop, nobody

    def detect(self, image):
        if self.asked == self.stop:
            raise KeyboardInterrupt
        self.asked += 1
        if self.nobody:
            return []
        joints = np.full((NUM_JOINTS, 2), image.mean() / 255, np.float32)
        return [Pose(joints, np.full(NUM_JOINTS, 0.9, np.float32), image.shape[:2])]


PICTURES = np.random.default_rng(0).integers(0, 255, (9, 12, 10, 3), np.uint8)


@pytest.fixture
def clip(tmp_path):
    write_clip(tmp_path / "clip", [np.repeat(np.repeat(p, 8, 0), 8, 1) for p in PICTURES], 10.0)
    return open_clip(tmp_path / "clip", fps=10.0)


def stopped_after_five(path):
    with suppress(KeyboardInterrupt), RememberingDetector(Counting(stop=5), path) as detector:
        for picture in PICTURES:
            detector.detect(picture)
    assert path.is_file()


def search(clip, folder, monkeypatch, detector):
    monkeypatch.setattr(detect, "get_detector", lambda name: detector)
    return find_poses(clip, cache=folder)


def test_a_stopped_search_goes_on_and_finds_the_same(clip, tmp_path, monkeypatch):
    whole = Counting()
    expected = search(clip, tmp_path / "whole", monkeypatch, whole)

    first, second = Counting(stop=6), Counting()
    with pytest.raises(KeyboardInterrupt):
        search(clip, tmp_path / "kept", monkeypatch, first)
    part = pose_path(clip, cache=tmp_path / "kept").with_suffix(".part")
    assert part.is_file()
    found = search(clip, tmp_path / "kept", monkeypatch, second)

    assert first.asked + second.asked == whole.asked, "nothing is asked twice"
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.pose.joints, other.pose.joints)
        np.testing.assert_array_equal(one.pose.scores, other.pose.scores)
        assert len(one.people) == len(other.people)
    assert [path.suffix for path in part.parent.iterdir()] == [".npz"], "what was kept is gone at the end"


def test_a_killed_search_has_what_was_written_on_the_way(tmp_path):
    killed = RememberingDetector(Counting(), tmp_path / "a.part", every=4)
    answers = [killed.detect(picture)[0] for picture in PICTURES]  # and no end: as after a kill
    again = Counting()
    resumed = RememberingDetector(again, tmp_path / "a.part", every=4)
    for picture, answer in zip(PICTURES, answers, strict=True):
        (pose,) = resumed.detect(picture)
        np.testing.assert_array_equal(pose.joints, answer.joints)
        assert pose.size == (12, 10)
    assert again.asked == 1, "8 of 9 answers were on the disk"


def test_other_pictures_are_not_answered_from_the_file(tmp_path):
    stopped_after_five(tmp_path / "a.part")
    changed = PICTURES.copy()
    changed[2] = 255 - changed[2]
    again = Counting()
    with RememberingDetector(again, tmp_path / "a.part") as other:
        for picture in changed:
            (pose,) = other.detect(picture)
            np.testing.assert_allclose(pose.joints, picture.mean() / 255, rtol=1e-6)
    assert again.asked == 7, "the two before the changed one are known"


@pytest.mark.parametrize("damage", [b"", b"nonsense of some length", None])
def test_a_damaged_file_costs_time_only(tmp_path, damage):
    path = tmp_path / "a.part"
    stopped_after_five(path)
    path.write_bytes(path.read_bytes()[:-40] if damage is None else damage)
    again = Counting()
    with RememberingDetector(again, path) as other:
        assert [len(other.detect(picture)) for picture in PICTURES] == [1] * 9
    assert again.asked == 9


def test_nobody_in_any_frame_leaves_nothing(clip, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no person found in any of the 9"):
        search(clip, tmp_path / "kept", monkeypatch, Counting(nobody=True))
    assert not list((tmp_path / "kept").rglob("*.*"))


def test_a_folder_that_cannot_be_written_to_stops_no_search(clip, tmp_path, monkeypatch):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "poses").write_text("a file in the way")
    monkeypatch.setattr(find, "RememberingDetector", lambda *given: RememberingDetector(*given, every=2))
    assert len(search(clip, tmp_path / "kept", monkeypatch, Counting())) == 9
