"""The wardrobe: garments of many cuts and colours, drawn at random, at least half of the tops patterned."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .cloth import EMBLEMS, LETTERS

Colour = tuple[float, float, float]  # RGB, 0..255

KINDS = ("upper", "lower", "dress")
# Name: odds among tops. Plain is 14 %, so 86 % of tops and dresses carry a pattern.
PATTERNS = {
    "plain": 17,
    "stripes": 16,
    "bars": 7,
    "diagonal": 6,
    "checks": 8,
    "dots": 11,
    "letter": 13,
    "emblem": 13,
    "print": 9,
    "halves": 5,
    "band": 7,
    "chevron": 4,
    "jacket": 6,
}
LOWER_PATTERNS = {"plain": 64, "bars": 8, "checks": 8, "stripes": 6, "dots": 6, "seam": 8, "print": 4}
NECKLINES = {"crew": 5, "v": 3, "scoop": 3, "tank": 2, "tube": 0.5}


@dataclass(frozen=True)
class Garment:
    """One piece of clothing.

    Lengths along limbs: 0 joint, 1 elbow or knee, 2 wrist or ankle; heights in metres over the hip joints.
    """

    kind: str  # upper, lower or dress
    cut: str  # upper: top; lower and dress: trousers, shorts or skirt
    pattern: str  # a name of PATTERNS or LOWER_PATTERNS
    colours: tuple[Colour, Colour, Colour]  # ground, motif, third
    motif: str = ""  # a letter or a name of EMBLEMS
    period: float = 0.1  # metres from motif to motif, or the width of one stripe
    sleeve: float = 0.5  # 0 = none
    sleeve_flare: float = 0.0  # 0..1
    neckline: str = "crew"
    depth: float = 0.06  # of the neckline, metres
    hem: float = -0.06  # height of the top's lower edge
    waist: float = 0.11  # height of the upper edge of trousers and skirts
    length: float = 2.0  # lower edge along the legs
    flare: float = 0.0  # 0..1 how much legs or skirt widen downwards
    loose: float = 0.4  # 0 = tight, 1 = wide
    trim: bool = False  # collar, cuffs and hem in the motif's colour
    raglan: bool = False  # sleeves in the motif's colour


@dataclass(frozen=True)
class Shoes:
    colour: Colour
    sole: Colour
    shaft: float  # 2 = low shoes, 1.3 = high boots


@dataclass(frozen=True)
class Outfit:
    """What a person wears: either upper and lower, or a dress."""

    upper: Garment | None
    lower_piece: Garment | None
    dress: Garment | None
    shoes: Shoes

    @property
    def top(self) -> Garment:
        piece = self.dress or self.upper
        assert piece is not None
        return piece

    @property
    def lower(self) -> Garment:
        piece = self.dress or self.lower_piece
        assert piece is not None
        return piece

    @property
    def garments(self) -> tuple[Garment, ...]:
        return tuple(piece for piece in (self.upper, self.lower_piece, self.dress) if piece is not None)

    def wearing(self, garment: Garment) -> Outfit:
        """This outfit with `garment` in place of its kind.

        A dress replaces both; a top or a lower replaces a dress by halves.
        """
        if garment.kind == "dress":
            return Outfit(None, None, garment, self.shoes)
        upper, lower = self.upper, self.lower_piece
        if self.dress is not None:  # the other half stays in the dress's cloth
            upper = replace(self.dress, kind="upper", cut="top", hem=0.0)
            lower = replace(self.dress, kind="lower")
        return (
            Outfit(garment, lower, None, self.shoes)
            if garment.kind == "upper"
            else Outfit(upper, garment, None, self.shoes)
        )


def choose(rng: np.random.Generator, odds: Mapping[str, float]) -> str:
    """Draw a name by its odds, which need not add up to 1."""
    weights = np.array(list(odds.values()), dtype=float)
    return list(odds)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def sample_colour(rng: np.random.Generator) -> Colour:
    """Any hue with equal odds, mostly saturated; a quarter white, black or grey."""
    kind, hue = rng.uniform(), rng.uniform()
    if kind < 0.12:
        saturation, value = rng.uniform(0, 0.10), rng.uniform(0.90, 1.0)
    elif kind < 0.22:
        saturation, value = rng.uniform(0, 0.3), rng.uniform(0.08, 0.22)
    elif kind < 0.26:
        saturation, value = rng.uniform(0, 0.12), rng.uniform(0.35, 0.7)
    else:
        saturation, value = rng.uniform(0.5, 0.95), rng.uniform(0.4, 1.0)
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return (255 * red, 255 * green, 255 * blue)


def luma(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def contrasting(rng: np.random.Generator, *others: Colour) -> Colour:
    """A colour far from the others.

    At least 75 levels of brightness, or 170 levels of colour distance with 35 of brightness.
    """
    colour = sample_colour(rng)
    for _ in range(30):
        gaps = [(abs(luma(colour) - luma(o)), float(np.linalg.norm(np.subtract(colour, o)))) for o in others]
        if all(bright > 75 or (bright > 35 and far > 170) for bright, far in gaps):
            break
        colour = sample_colour(rng)
    return colour


def sample_garment(rng: np.random.Generator, kind: str) -> Garment:
    """Draw a garment of a kind: 'upper', 'lower' or 'dress'."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind of garment {kind!r}: choose one of {', '.join(KINDS)}")
    ground = sample_colour(rng)
    second = contrasting(rng, ground)
    third = contrasting(rng, ground)
    pattern = choose(rng, LOWER_PATTERNS if kind == "lower" else PATTERNS)
    if kind == "dress" and pattern == "jacket":
        pattern = "dots"
    motif = {"letter": LETTERS[int(rng.integers(len(LETTERS)))]}.get(
        pattern, EMBLEMS[int(rng.integers(len(EMBLEMS)))]
    )
    period = {
        "dots": (0.11, 0.16),
        "print": (0.15, 0.20),
        "checks": (0.07, 0.13),
        "letter": (0.22, 0.27),
        "emblem": (0.21, 0.26),
    }
    low, high = period.get(pattern, (0.065, 0.12))
    common: dict[str, Any] = {
        "kind": kind,
        "pattern": pattern,
        "colours": (ground, second, third),
        "motif": motif,
        "period": float(rng.uniform(low, high)),
        "loose": float(rng.uniform(0, 1)),
        "trim": bool(rng.uniform() < 0.3),
    }
    upper: dict[str, Any] = {
        "sleeve": (0.0, 0.3, 0.55, 1.1, 1.93)[int(rng.choice(5, p=(0.16, 0.14, 0.30, 0.12, 0.28)))],
        "sleeve_flare": float(rng.uniform() < 0.15),
        "neckline": choose(rng, NECKLINES),
        "depth": float(rng.uniform(0.05, 0.12)),
        "raglan": bool(rng.uniform() < 0.2 and pattern in ("plain", "letter", "emblem")),
    }
    if upper["sleeve"] > 0 and upper["neckline"] in ("tank", "tube"):
        upper["neckline"] = "crew"
    if kind == "upper":
        hem = (-0.06, -0.035, 0.02, 0.16)[int(rng.choice(4, p=(0.3, 0.35, 0.25, 0.10)))]
        return Garment(cut="top", hem=hem, **upper, **common)
    if kind == "dress":
        return Garment(
            cut="skirt",
            hem=-0.02,
            waist=0.11,
            length=float(rng.uniform(0.55, 1.6)),
            flare=float(rng.uniform(0.2, 1.0)),
            **upper,
            **common,
        )
    cut = choose(rng, {"trousers": 5, "shorts": 2.5, "skirt": 2.5})
    lengths = {"trousers": (1.75, 1.98), "shorts": (0.55, 0.98), "skirt": (0.5, 1.5)}[cut]
    flare = {"trousers": float(rng.uniform() < 0.25), "shorts": 0.5, "skirt": float(rng.uniform(0.1, 1.0))}[
        cut
    ]
    return Garment(
        cut=cut,
        length=float(rng.uniform(*lengths)),
        flare=flare,
        waist=float(rng.uniform(0.08, 0.14)),
        **common,
    )


def sample_outfit(rng: np.random.Generator) -> Outfit:
    shoe = sample_colour(rng)
    shoes = Shoes(shoe, contrasting(rng, shoe), float((2.0, 2.0, 1.75, 1.3)[int(rng.integers(4))]))
    if rng.uniform() < 0.17:
        return Outfit(None, None, sample_garment(rng, "dress"), shoes)
    upper, lower = sample_garment(rng, "upper"), sample_garment(rng, "lower")
    for _ in range(10):  # trousers that one can tell from the top
        if np.linalg.norm(np.subtract(upper.colours[0], lower.colours[0])) > 90:
            break
        lower = sample_garment(rng, "lower")
    return Outfit(upper, lower, None, shoes)
