"""Postures and how they follow each other: single random ones, and smooth clips (dance, walk, wave, turn)."""

from __future__ import annotations

import numpy as np

from .figure import ARM, INDEX, LEG, PARAMETERS
from .wardrobe import choose

CLIPS = ("dance", "walk", "wave", "turn")

# Arm gestures: mean and spread of raise, swing, twist, elbow, wrist, curl (degrees). Raise 90 = held out to
# the side.
ARMS = {
    "hang": ((13, 0, -20, 18, 0, 18), (6, 14, 18, 12, 8, 8)),
    "slope": ((38, 0, 0, 18, 0, 12), (10, 12, 30, 14, 10, 8)),
    "tee": ((86, 0, 40, 10, 0, 6), (12, 12, 40, 9, 10, 5)),
    "high": ((148, 0, 20, 18, 0, 6), (13, 10, 30, 14, 10, 5)),
    "goal": ((84, 0, 88, 84, 0, 10), (12, 10, 12, 15, 8, 8)),
    "robot": ((82, 0, -88, 80, 0, 10), (8, 8, 12, 18, 8, 8)),
    "hip": ((50, -18, -74, 88, 15, 25), (4, 5, 5, 6, 6, 6)),
    "front": ((14, 74, 0, 22, 0, 10), (10, 14, 20, 18, 8, 8)),
    "carry": ((18, 14, 0, 92, 0, 25), (8, 12, 16, 16, 8, 8)),
    "wave": ((70, 8, 90, 112, 0, 3), (12, 8, 10, 14, 14, 3)),
    "heart": ((30, 16, -48, 112, 0, 15), (6, 8, 8, 8, 6, 8)),
    "back": ((14, -34, -10, 24, 0, 18), (6, 9, 10, 12, 8, 8)),
}
ARM_ODDS = {"hang": 3, "slope": 2.5, "tee": 2, "high": 2, "goal": 2, "robot": 1, "hip": 2.5, "front": 0.8,
    "carry": 1, "wave": 2,
            "heart": 1, "back": 0.5}  # fmt: skip

# Stances: for the (first, second) leg the mean of out, stride, turn, knee, toe; which leg is first is drawn.
STANCES = {
    "stand": ((5, 2, 10, 4, 0), (5, -2, 10, 4, 0)),
    "wide": ((19, 2, 16, 5, 0), (19, 0, 16, 5, 0)),
    "walk": ((2, 27, 3, 10, -8), (2, -20, 3, 20, 25)),
    "lunge": ((6, 48, 6, 52, 0), (6, -22, 8, 22, 25)),
    "knee": ((8, 64, 6, 82, 15), (3, -2, 8, 4, 0)),
    "relaxed": ((14, 10, 25, 18, 4), (1, -3, 6, 2, 0)),
    "squat": ((18, 48, 18, 82, 0), (18, 48, 18, 82, 0)),
    "kick": ((38, 4, 10, 6, 10), (4, 0, 8, 6, 0)),
}
STANCE_ODDS = {
    "stand": 3,
    "wide": 3,
    "walk": 3,
    "lunge": 1,
    "knee": 1,
    "relaxed": 2.5,
    "squat": 0.5,
    "kick": 1,
}


def rest() -> np.ndarray:
    """Standing straight, arms hanging: the vector (33,) that the others vary."""
    posture = np.zeros(len(PARAMETERS))
    for side in ("right", "left"):
        posture[ARM[side]] = ARMS["hang"][0]
        posture[LEG[side]] = STANCES["stand"][0]
    return posture


def _arm(rng: np.random.Generator, name: str) -> np.ndarray:
    mean, spread = np.array(ARMS[name], dtype=float)
    arm = mean + spread * rng.uniform(-1, 1, 6)
    arm[[3, 5]] = np.maximum(arm[[3, 5]], 2.0)  # elbows and fingers bend one way only
    arm[0] = max(arm[0], 9.0)
    return arm


def sample_yaw(rng: np.random.Generator) -> float:
    """Degrees, 0 = facing the camera: eight of ten near the front, the others from the sides and from behind.

    So 30-45 % of random pairs of views differ by more than 45 degrees.
    """
    kind = rng.uniform()
    if kind < 0.80:
        return float(rng.uniform(-30, 30))
    if kind < 0.91:
        return float(rng.uniform(35, 110) * rng.choice((-1, 1)))
    return float(180 + rng.uniform(-70, 70) + 180) % 360 - 180


def sample_posture(rng: np.random.Generator) -> np.ndarray:
    """A random posture with a random turn."""
    posture = rest()
    posture[INDEX["yaw"]] = sample_yaw(rng)
    stance = choose(rng, STANCE_ODDS)
    first, second = ("right", "left") if rng.uniform() < 0.5 else ("left", "right")
    for side, mean in zip((first, second), STANCES[stance], strict=True):
        posture[LEG[side]] = np.array(mean) + rng.uniform(-1, 1, 5) * (3, 6, 6, 4, 3)
        posture[INDEX[f"{side}_knee"]] = max(posture[INDEX[f"{side}_knee"]], 1.0)
    names = [choose(rng, ARM_ODDS), choose(rng, ARM_ODDS)]
    if rng.uniform() < 0.3:
        names[1] = names[0]  # both arms alike
    if stance in ("walk", "lunge") and rng.uniform() < 0.5:
        names = ["back", "hang"]
    for side, name in zip((first, second), names, strict=True):
        posture[ARM[side]] = _arm(rng, name)
    for name, spread in (
        ("tilt", 4),
        ("bow", 4),
        ("side", 9),
        ("bend", 6),
        ("spin", 16),
        ("nod", 9),
        ("cock", 10),
        ("look", 24),
    ):
        posture[INDEX[name]] = rng.uniform(-spread, spread)
    if stance == "squat":
        posture[INDEX["bow"]] += 22
    return posture


def clip_postures(kind: str, rng: np.random.Generator, num_frames: int, fps: float) -> np.ndarray:
    """The postures of a smooth clip, (num_frames, 33).

    `kind` is one of CLIPS; times are seconds, so fps only changes the sampling.
    """
    time = np.arange(num_frames) / fps
    phase, tempo = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.2)
    base = rest()
    base[INDEX["yaw"]] = rng.uniform(-30, 30)
    frames = np.repeat(base[None], num_frames, 0)
    beat = 2 * np.pi * tempo * time + phase

    def move(name: str, value: np.ndarray | float) -> None:
        frames[:, INDEX[name]] += value

    if kind == "dance":  # a key posture every 0.6 s, mixed with cosine ramps, and a bounce
        num_keys = int(np.ceil(time[-1] / 0.6)) + 2 if num_frames else 2
        # in order: a longer clip starts like the shorter one
        keys = np.stack([sample_posture(rng) for _ in range(num_keys)])
        keys[:, INDEX["yaw"]] = base[INDEX["yaw"]] + 40 * np.sin(2.4 * np.arange(num_keys) + phase)
        place = time / 0.6
        left = place.astype(int)
        ramp = (0.5 - 0.5 * np.cos(np.pi * (place - left)))[:, None]
        frames = keys[left] * (1 - ramp) + keys[left + 1] * ramp
        move("shift_y", 0.015 * np.sin(beat * 2))
    elif kind == "walk":
        stride = np.sin(beat)
        for side, sign in (("right", 1.0), ("left", -1.0)):
            move(f"{side}_stride", 24 * sign * stride)
            move(
                f"{side}_knee",
                14 + 26 * np.clip(np.sin(beat * 1.0 + (0 if sign > 0 else np.pi) + 1.2), -0.5, 1) + 8,
            )
            move(f"{side}_swing", -24 * sign * stride)
            move(f"{side}_elbow", 14 + 8 * sign * -stride)
        frames[:, INDEX["yaw"]] += rng.choice((-1, 1)) * rng.uniform(20, 70)
        move("spin", 6 * stride)
    elif kind == "wave":
        side = str(rng.choice(("right", "left")))
        frames[:, ARM[side]] = ARMS["wave"][0]
        lift = np.clip(time / 0.5, 0, 1)
        lift = lift * lift * (3 - 2 * lift)
        frames[:, ARM[side]] = base[ARM[side]] + (frames[:, ARM[side]] - base[ARM[side]]) * lift[:, None]
        move(f"{side}_elbow", 20 * lift * np.sin(beat * 1.3))
        move("cock", 5 * np.sin(beat * 0.6))
        move("side", 3 * np.sin(beat * 0.6))
    else:
        move("yaw", rng.choice((-1, 1)) * time * rng.uniform(90, 130))
        for side in ("right", "left"):
            move(f"{side}_raise", 8 + 5 * np.sin(beat))
            move(f"{side}_knee", 6 + 5 * np.sin(beat * 2))
            move(f"{side}_stride", 4)
    return frames
