"""Poses kept on disk: found once, found again by content, damaged files mended."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from scd.pose import cache as cache_module
from scd.pose.cache import cache_folder, cache_path, cached_poses, detector_version
from scd.pose.files import PoseFile
from scd.types import NUM_JOINTS, Pose, UserError


class Search:
    """Finds one person, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> PoseFile:
        self.asked += 1
        joints = np.full((NUM_JOINTS, 2), self.asked / 10, np.float32)
        return PoseFile([[Pose(joints, np.ones(NUM_JOINTS, np.float32), (20, 30))], []], (20, 30), 24.0)


OPTIONS = {"person": "largest", "tracking": 1}


def test_asked_once(tmp_path):
    search = Search()
    first = cached_poses(search, "abc", "mediapipe", OPTIONS, tmp_path)
    again = cached_poses(search, "abc", "mediapipe", dict(reversed(OPTIONS.items())), tmp_path)
    assert search.asked == 1
    assert again.fps == first.fps == 24
    assert again.size == (20, 30)
    assert [len(frame) for frame in again.frames] == [1, 0]
    np.testing.assert_array_equal(again.frames[0][0].joints, first.frames[0][0].joints)
    assert [path.suffix for path in (tmp_path / "poses").iterdir()] == [".npz"]


def test_whatever_changes_the_result_is_asked_again(tmp_path, monkeypatch):
    search = Search()
    cached_poses(search, "abc", "mediapipe", OPTIONS, tmp_path)
    cached_poses(search, "abd", "mediapipe", OPTIONS, tmp_path)
    cached_poses(search, "abc", "dwpose", OPTIONS, tmp_path)
    cached_poses(search, "abc", "mediapipe", {**OPTIONS, "person": 2}, tmp_path)
    assert search.asked == 4
    monkeypatch.setattr(cache_module, "version", lambda name: "99.0")
    cached_poses(search, "abc", "mediapipe", OPTIONS, tmp_path)
    assert search.asked == 5


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 nonsense", None])
def test_a_damaged_file_is_written_again(tmp_path, damage):
    search = Search()
    cached_poses(search, "abc", "mediapipe", OPTIONS, tmp_path)
    path = cache_path("abc", "mediapipe", OPTIONS, tmp_path)
    path.write_bytes(path.read_bytes()[:-40] if damage is None else damage)
    second = cached_poses(search, "abc", "mediapipe", OPTIONS, tmp_path)
    assert search.asked == 2
    third = cached_poses(search, "abc", "mediapipe", OPTIONS, tmp_path)
    assert search.asked == 2
    np.testing.assert_array_equal(second.frames[0][0].joints, third.frames[0][0].joints)


def test_errors_pass_and_leave_nothing(tmp_path):
    def nobody() -> PoseFile:
        raise UserError("no person found")

    with pytest.raises(UserError, match="no person found"):
        cached_poses(nobody, "abc", "mediapipe", OPTIONS, tmp_path)
    assert not list(tmp_path.rglob("*.*"))


def test_a_folder_that_cannot_be_written_to_is_only_a_warning(tmp_path, caplog):
    (tmp_path / "poses").write_text("a file in the way")
    with caplog.at_level(logging.WARNING, "scd"):
        poses = cached_poses(Search(), "abc", "mediapipe", OPTIONS, tmp_path)
    assert len(poses.frames) == 2
    (record,) = caplog.records
    assert "the poses found cannot be kept (SCD_CACHE names another folder): " in record.getMessage()
    assert "\n" not in record.getMessage()


def test_where_the_folder_is(tmp_path, monkeypatch):
    monkeypatch.setenv("SCD_CACHE", str(tmp_path / "env"))
    assert cache_folder() == tmp_path / "env"
    assert cache_folder(tmp_path / "own") == tmp_path / "own"
    assert cache_path("a", "mediapipe", {}).parent == tmp_path / "env" / "poses"
    monkeypatch.setenv("SCD_CACHE", "")
    monkeypatch.setattr(cache_module.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "scd"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "scd"
    monkeypatch.setattr(cache_module.sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "scd"
    monkeypatch.setattr(cache_module.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "scd"


def test_versions_of_detectors():
    assert detector_version("mediapipe").startswith("0.10")
    assert detector_version("nothing") == ""
