"""Clips on the disk as a training set: like the world's, every sample a function of its index alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scd.config import DataConfig
from scd.data.augment import perturb
from scd.data.blocks import Blocks
from scd.data.buckets import Buckets
from scd.data.frames import Reader, read_pictures
from scd.data.heads import head_mask
from scd.data.layouts import find_clips
from scd.data.manifest import require_files
from scd.data.memory import Memory
from scd.data.shots import Shot, all_shots
from scd.data.unreadable import Unreadable, read_one
from scd.data.world import draw_num_references
from scd.pose.draw import draw_pose
from scd.types import Sample, UserError

log = logging.getLogger("scd")


class RealPictures:
    """Map-style dataset of `length` samples: references and targets of one shot, at least `gap` frames of 30
    a second apart.

    A block of `group` consecutive samples is a batch, so its samples share one bucket and one number of
    references. A clip that cannot be read any more is passed over (scd.data.unreadable).
    """

    def __init__(
        self, shots: Sequence[Shot], length: int, num_targets: int = 4,
        references: tuple[float, ...] = (1.0,), group: int = 1, seed: int = 0, gap: int = 30,
        augment: bool = False, most: int | None = None, heads: bool = False,
    ):  # fmt: skip
        """references: the chances of 1, 2, 3 ... references. most: shots that are used of those that are long
        enough. heads: whether samples say where the targets' heads are. Raises UserError when no shot is
        long enough."""
        self.length, self.num_targets, self.references = length, num_targets, references
        self.group, self.seed, self.gap, self.augment, self.heads = group, seed, gap, augment, heads
        self.read: Reader = read_pictures  # scd.latents puts what it kept in its place
        suited = [self.suits(shot) for shot in shots]
        self.shots = [shot for shot, suits in zip(shots, suited, strict=True) if suits][:most]
        self.left_out = [shot.name for shot, suits in zip(shots, suited, strict=True) if not suits]
        if not self.shots:
            why = f"{self.needs} in one shot; {len(shots)} are shorter"
            raise UserError(f"no clip can train: {why if shots else 'none can be read and shows a person'}")
        sizes = [shot.bucket for shot in self.shots]
        self.blocks = Blocks(sizes, group, seed)
        self.unreadable = Unreadable([shot.name for shot in self.shots])

    def __len__(self) -> int:
        return self.length

    @property
    def needs(self) -> str:
        return f"training needs a reference and a target {in_seconds(self.gap)}"

    @property
    def items(self) -> Sequence[Shot]:
        """What samples are read from."""
        return self.shots

    def suits(self, shot: Shot) -> bool:
        """Whether the shot is long enough."""
        return len(shot.usable) > 0 and shot.usable[-1] - shot.usable[0] >= shot.apart(self.gap)

    def shot_of(self, index: int) -> Shot:
        return self.shots[self.blocks.item(index)]

    def __getitem__(self, index: int) -> Sample:
        num = draw_num_references(self.seed, index // self.group, self.references)

        def read(item: int) -> Sample:
            return self.sample(self.shots[item], num, np.random.default_rng([self.seed, 2, index]))

        return read_one(read, index, self.blocks, self.unreadable)

    def sample(self, shot: Shot, num: int, rng: np.random.Generator) -> Sample:
        """`num` references and the targets of a shot; all that is random comes from `rng`."""
        references, targets = self.choose(shot, num, rng)
        pictures, tokens = self.read(shot, [*references, *targets])
        poses = [shot.pose(t) for t in (*references, *targets)]
        heads = np.stack([head_mask(pose, shot.bucket) for pose in poses[num:]]) if self.heads else None
        if self.augment:
            poses = [perturb(pose, rng) for pose in poses]
        drawings = np.stack([draw_pose(pose, shot.bucket) for pose in poses])
        tokens = None if tokens is None else tokens[:num]
        return Sample(pictures[:num], drawings[:num], pictures[num:], drawings[num:], tokens, heads)

    def choose(self, shot: Shot, num: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """Frames of `num` references and the targets, each pair `self.gap` apart or more. A reference is any
        frame that leaves targets enough; where none does, a target comes more than once."""
        usable, targets, references, gap = shot.usable, shot.usable, [], shot.apart(self.gap)
        while len(references) < num:
            near = np.searchsorted(targets, usable + gap) - np.searchsorted(
                targets, usable - gap, side="right"
            )  # targets that each frame would cost
            left = len(targets) - near
            fit = usable[left >= min(self.num_targets, left.max())]
            others = np.setdiff1d(fit, references)  # r + r is no second reference
            references.append(int(rng.choice(others if len(others) else fit)))
            targets = targets[np.abs(targets - references[-1]) >= gap]
        few = len(targets) < self.num_targets
        chosen = rng.choice(targets, self.num_targets, replace=few)
        return references, [int(t) for t in chosen]


class RealClips(RealPictures):
    """Each sample is references, and `num_targets` successive frames at a stride, all with the person."""

    def __init__(self, *args: Any, strides: tuple[int, ...] = (4,), **options: Any):
        """strides: in frames of 30 a second; one that fits is drawn a sample. The rest as RealPictures."""
        self.strides = strides
        self.windows = Memory(self._windows, 256)
        super().__init__(*args, **options)

    @property
    def needs(self) -> str:
        return f"training needs {self.num_targets} frames with the person at stride {min(self.strides)}"

    def suits(self, shot: Shot) -> bool:
        return any(len(self.windows(shot, stride)) for stride in self.strides)

    def _windows(self, shot: Shot, stride: int) -> NDArray[np.int64]:
        """(num, N) frames of every window at this stride: the person is in all of them."""
        step = max(1.0, shot.span(stride))
        offsets = np.rint(np.arange(self.num_targets) * step).astype(np.int64)
        frames = shot.usable[:, None] + offsets
        return frames[np.isin(frames, shot.usable).all(1)]

    def choose(self, shot: Shot, num: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """The references lie `self.gap` or more outside the window where the shot has such frames; else
        outside, else anywhere."""
        fitting = [stride for stride in self.strides if len(self.windows(shot, stride))]
        window = rng.choice(self.windows(shot, int(rng.choice(fitting))))
        usable = shot.usable
        outside = np.maximum(window[0] - usable, usable - window[-1])  # above 0: so far outside
        gap = shot.apart(self.gap)
        least = next((least for least in (gap, 1) if (outside >= least).any()), outside.min())
        there = usable[outside >= least]
        references = rng.choice(there, num, replace=len(there) < num)
        return references.tolist(), window.tolist()


def in_seconds(gap: int) -> str:
    """ "1 s apart", of 30 frames of 30 a second."""
    return f"{gap / 30:.3g} s apart"


def open_real(
    data: DataConfig,
    length: int,
    seed: int = 0,
    overfit: int = 0,
    held_out: bool = False,
    heads: bool = False,
) -> RealPictures:
    """The training set that a config names; `held_out`: the clips that it leaves out, or all of a dataset
    that is too small for that. Logs what is too short. Raises UserError when nothing was prepared, or
    nothing can train."""
    layout = find_clips(data.root, data.kind)
    clips = layout.training
    if held_out and layout.held_out:
        clips = sorted(layout.held_out)
    entries = layout.entries()
    if held_out:  # of a run that goes on: what came into the folder since it began was not prepared
        clips = [clip for clip in clips if clip in entries] or clips
    if any(clip not in entries for clip in clips):
        raise UserError(f"{data.root}: was not prepared yet; run scd data prepare {data.root}")
    if layout.listed_in:
        poses = [layout.poses(entries[clip]) for clip in clips if entries[clip].poses]
        require_files(layout.manifest, [*map(layout.path, clips), *poses])
    shots = all_shots(layout, entries, clips, Buckets(data.size))
    options: dict[str, Any] = {
        "references": data.references, "group": data.groups, "seed": seed, "gap": data.gap,
        "augment": data.augment, "most": overfit or None, "heads": heads,
    }  # fmt: skip
    try:
        if data.frames > 1:
            dataset = RealClips(shots, length, data.frames, strides=data.strides, **options)
        else:
            dataset = RealPictures(shots, length, data.targets, **options)
    except UserError as error:
        raise UserError(f"{data.root}: {error}") from None
    _tell(data.root, "cannot be used, passed over", [clip for clip in clips if entries[clip].error])
    _tell(data.root, "too short, left out", dataset.left_out)
    return dataset


def _tell(root: str, what: str, names: Sequence[str]) -> None:
    if names:
        some = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
        log.warning("%s: %d %s: %s", root, len(names), what, some)
