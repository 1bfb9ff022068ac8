"""A search for poses that was stopped goes on where it was: what the detector answered is kept on the way."""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from scd.media import replacing
from scd.pose.detect import Detector
from scd.types import NUM_JOINTS, Pose, UserError

log = logging.getLogger("scd")

PAUSE = 10.0  # seconds from one writing to the next: what a kill costs


class RememberingDetector:
    """A detector that answers from the file of a search that was stopped, as long as it is shown the same
    pictures in the same order, and then asks `detector`.

    As a context it writes the file at the end, however the search ended; whoever has kept the result removes
    it. A file that cannot be read or written costs time only.
    """

    def __init__(self, detector: Detector, path: Path, clip: str, pause: float = PAUSE):
        self.detector, self.path, self.clip, self.pause = detector, path, clip, pause
        self._answers = _read(path)
        self._asked, self._unwritten, self._written_at = 0, 0, time.monotonic()

    def detect(self, image: NDArray[np.uint8]) -> list[Pose]:
        shown, number = _digest(image), self._asked
        self._asked += 1
        if number < len(self._answers):
            known, poses = self._answers[number]
            if known == shown:
                if number == 0:
                    log.info("%s: the search for poses goes on where it was stopped", self.clip)
                return list(poses)
            del self._answers[number:]  # another picture: what followed was the answer to something else
        poses = tuple(self.detector.detect(image))
        self._answers.append((shown, poses))
        self._unwritten += 1
        if time.monotonic() - self._written_at >= self.pause:
            self._write()
        return list(poses)

    def __enter__(self) -> RememberingDetector:
        return self

    def __exit__(self, *_: object) -> None:
        if self._unwritten:
            self._write()

    def _write(self) -> None:
        poses = [pose for _, found in self._answers for pose in found]
        arrays = {
            "shown": np.array([shown for shown, _ in self._answers], np.uint64),
            "people": np.array([len(found) for _, found in self._answers], np.int64),
            "joints": np.array([pose.joints for pose in poses], np.float32).reshape(-1, NUM_JOINTS, 2),
            "scores": np.array([pose.scores for pose in poses], np.float32).reshape(-1, NUM_JOINTS),
            "sizes": np.array([pose.size for pose in poses], np.int64).reshape(-1, 2),
        }
        self._unwritten, self._written_at = 0, time.monotonic()
        try:
            with replacing(self.path, force=True) as temporary:
                save_file(arrays, temporary)
        except (UserError, OSError, SafetensorError) as error:  # the last is a full disk
            log.debug("what was found so far cannot be kept: %s", error)


def _digest(image: NDArray[np.uint8]) -> int:
    content = hashlib.sha256(str(image.shape).encode())  # 4 ms for 1920 x 1080, the detector 200
    content.update(np.ascontiguousarray(image).data)
    return int.from_bytes(content.digest()[:8], "little")


def _read(path: Path) -> list[tuple[int, tuple[Pose, ...]]]:
    try:
        held = load_file(path)
        rows = zip(held["joints"], held["scores"], held["sizes"].tolist(), strict=True)
        poses = iter([Pose(joints, scores, (height, width)) for joints, scores, (height, width) in rows])
        counts = zip(held["shown"].tolist(), held["people"].tolist(), strict=True)
        return [(shown, tuple(next(poses) for _ in range(people))) for shown, people in counts]
    except Exception:  # missing or damaged: everything is asked again
        return []
