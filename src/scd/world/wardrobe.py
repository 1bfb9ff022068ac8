"""The wardrobe: garments of many cuts, and the patterns on their cloth.

Cloth has coordinates in metres: `across` (0 in the middle of the front, growing to the right of a picture that shows the front) and
`down` (0 at the top edge). Patterns are functions of these, so prints move with the cloth and look the same on the flat garment.
Motifs are large: at 128 px a person shows 60 pixels per metre, and a network sees 8 x 8 pixels at a time.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

Colour = tuple[float, float, float]  # RGB, 0..255

KINDS = ("upper", "lower", "dress")
# Name: odds among tops. Plain is 17 %, so 83 % of tops and dresses carry a pattern.
PATTERNS = {"plain": 17, "stripes": 16, "bars": 7, "diagonal": 6, "checks": 8, "dots": 11, "letter": 13, "emblem": 13, "print": 9,
            "halves": 5, "band": 7, "chevron": 4, "jacket": 6}  # fmt: skip
LOWER_PATTERNS = {"plain": 64, "bars": 8, "checks": 8, "stripes": 6, "dots": 6, "seam": 8, "print": 4}
EMBLEMS = ("star", "heart", "bolt", "target", "smile", "flower", "diamond", "plus", "moon", "arrow")
LETTERS = "ABCDEFGHKLMNPRSTUVWXYZ2345679"
NECKLINES = {"crew": 5, "v": 3, "scoop": 3, "tank": 2, "tube": 0.5}


@dataclass(frozen=True)
class Garment:
    """One piece of clothing. Lengths along limbs: 0 joint, 1 elbow or knee, 2 wrist or ankle; heights in metres over the hip joints."""

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
        """This outfit with `garment` in place of its kind. A dress replaces both; a top or a lower replaces a dress by halves."""
        if garment.kind == "dress":
            return Outfit(None, None, garment, self.shoes)
        upper, lower = self.upper, self.lower_piece
        if self.dress is not None:  # the other half stays in the dress's cloth
            upper = replace(self.dress, kind="upper", cut="top", hem=0.0)
            lower = replace(self.dress, kind="lower")
        return Outfit(garment, lower, None, self.shoes) if garment.kind == "upper" else Outfit(upper, garment, None, self.shoes)


def _choose(rng: np.random.Generator, odds: dict[str, float]) -> str:
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
    """A colour far from the others: at least 75 levels of brightness, or 170 levels of colour distance with 35 of brightness."""
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
    pattern = _choose(rng, LOWER_PATTERNS if kind == "lower" else PATTERNS)
    if kind == "dress" and pattern == "jacket":
        pattern = "dots"
    motif = {"letter": LETTERS[int(rng.integers(len(LETTERS)))]}.get(pattern, EMBLEMS[int(rng.integers(len(EMBLEMS)))])
    period = {"dots": (0.11, 0.16), "print": (0.15, 0.20), "checks": (0.07, 0.13), "letter": (0.22, 0.27), "emblem": (0.21, 0.26)}
    low, high = period.get(pattern, (0.065, 0.12))
    common = dict(kind=kind, pattern=pattern, colours=(ground, second, third), motif=motif, period=float(rng.uniform(low, high)),
                  loose=float(rng.uniform(0, 1)), trim=bool(rng.uniform() < 0.3))  # fmt: skip
    upper = dict(
        sleeve=(0.0, 0.3, 0.55, 1.1, 1.93)[int(rng.choice(5, p=(0.16, 0.14, 0.30, 0.12, 0.28)))],
        sleeve_flare=float(rng.uniform() < 0.15),
        neckline=_choose(rng, NECKLINES),
        depth=float(rng.uniform(0.05, 0.12)),
        raglan=bool(rng.uniform() < 0.2 and pattern in ("plain", "letter", "emblem")),
    )
    if upper["sleeve"] > 0 and upper["neckline"] in ("tank", "tube"):
        upper["neckline"] = "crew"
    if kind == "upper":
        hem = (-0.06, -0.035, 0.02, 0.16)[int(rng.choice(4, p=(0.3, 0.35, 0.25, 0.10)))]
        return Garment(cut="top", hem=hem, **upper, **common)
    if kind == "dress":
        return Garment(cut="skirt", hem=-0.02, waist=0.11, length=float(rng.uniform(0.55, 1.6)), flare=float(rng.uniform(0.2, 1.0)),
                       **upper, **common)  # fmt: skip
    cut = _choose(rng, {"trousers": 5, "shorts": 2.5, "skirt": 2.5})
    lengths = {"trousers": (1.75, 1.98), "shorts": (0.55, 0.98), "skirt": (0.5, 1.5)}[cut]
    flare = {"trousers": float(rng.uniform() < 0.25), "shorts": 0.5, "skirt": float(rng.uniform(0.1, 1.0))}[cut]
    return Garment(cut=cut, length=float(rng.uniform(*lengths)), flare=flare, waist=float(rng.uniform(0.08, 0.14)), **common)


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


def _star(points: int, inner: float, turn: float = 0.0) -> np.ndarray:
    angle = np.pi * np.arange(2 * points) / points + turn
    radius = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], 1)


@lru_cache(maxsize=64)
def motif_mask(name: str) -> np.ndarray:
    """The motif as a mask (128, 128) in 0..1: a letter or a name of EMBLEMS. The outermost pixels are 0."""
    size = 512
    mask = np.zeros((size, size), np.uint8)
    middle, radius = size // 2, int(size * 0.46)

    def polygon(points: np.ndarray, value: int = 255) -> None:
        cv2.fillPoly(mask, [np.round(middle + radius * points).astype(np.int32)], value)

    def disc(x: float, y: float, r: float, value: int = 255) -> None:
        cv2.circle(mask, (round(middle + radius * x), round(middle + radius * y)), round(radius * r), value, -1)

    if len(name) == 1:
        scale = 15.0
        (wide, high), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, scale, 75)
        cv2.putText(mask, name, (middle - wide // 2, middle + high // 2), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 75, cv2.LINE_AA)
    elif name == "star":
        polygon(_star(5, 0.45))
    elif name == "heart":
        t = np.linspace(0, 2 * np.pi, 60)
        polygon(np.stack([16 * np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))], 1) / 17)
    elif name == "bolt":
        polygon(np.array([[0.25, -1], [-0.6, 0.12], [-0.08, 0.12], [-0.3, 1], [0.6, -0.25], [0.06, -0.25]]))
    elif name == "target":
        for r, value in ((1, 255), (0.68, 0), (0.4, 255)):
            disc(0, 0, r, value)
    elif name == "smile":
        disc(0, 0, 1)
        disc(-0.36, -0.25, 0.17, 0)
        disc(0.36, -0.25, 0.17, 0)
        cv2.ellipse(mask, (middle, middle + radius // 8), (radius * 6 // 10, radius // 2), 0, 10, 170, 0, radius // 6)
    elif name == "flower":
        for k in range(6):
            disc(0.58 * np.sin(k * np.pi / 3), 0.58 * np.cos(k * np.pi / 3), 0.40)
        disc(0, 0, 0.26, 0)
    elif name == "diamond":
        polygon(np.array([[0, -1], [0.75, 0], [0, 1], [-0.75, 0]]))
    elif name == "plus":
        polygon(np.array([[-0.32, -1], [0.32, -1], [0.32, -0.32], [1, -0.32], [1, 0.32], [0.32, 0.32], [0.32, 1], [-0.32, 1], [-0.32, 0.32],
                          [-1, 0.32], [-1, -0.32], [-0.32, -0.32]]))  # fmt: skip
    elif name == "moon":
        disc(0, 0, 1)
        disc(0.45, -0.15, 0.8, 0)
    elif name == "arrow":
        polygon(np.array([[0, -1], [0.95, 0], [0.38, 0], [0.38, 1], [-0.38, 1], [-0.38, 0], [-0.95, 0]]))
    mask = cv2.resize(mask, (128, 128), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    mask[[0, -1]], mask[:, [0, -1]] = 0, 0
    return mask


def _stamp(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The motif's mask at x, y in -1..1 (outside: 0)."""
    map_x, map_y = (np.ascontiguousarray(m, np.float32) for m in np.broadcast_arrays(64 + 62 * x, 64 + 62 * y))
    return cv2.remap(motif_mask(name), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


def neckline(kind: str, depth: float, height: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Where the torso is bare above a neckline: height over the hip joints, angle in degrees from the front (0..180)."""
    if kind == "tube":
        return height > 0.425 + 0 * angle
    collar = 0.528 - 0.010 * (angle < 90)
    if kind == "v":
        collar = np.minimum(collar, 0.528 - 1.3 * depth * np.clip(1 - angle / 38, 0, 1))
    elif kind in ("scoop", "tank"):
        collar = np.minimum(collar, 0.528 - depth * np.sqrt(np.clip(1 - (angle / 58) ** 2, 0, 1)))
    bare = height > collar
    if kind == "tank":
        bare = bare | ((np.abs(angle - 90) < 28) & (height > 0.43 + 0.0022 * np.abs(angle - 90)))
    return bare


def cloth(garment: Garment, across: np.ndarray, down: np.ndarray, zone: str) -> np.ndarray:
    """The cloth's colour (M, N, 3) float32 at `across` (1, N) and `down` (M, 1) metres. Zones: chest, sleeve, leg, skirt."""
    ground, second, third = (np.array(c, np.float32) for c in garment.colours)
    period, pattern = garment.period, garment.pattern
    if garment.raglan and zone == "sleeve":
        ground, second = second, ground
    x, y = across / period, down / period
    share: np.ndarray | float = 0.0  # of the second colour
    if pattern == "stripes":
        share = np.floor(y) % 2
    elif pattern == "bars":
        share = np.floor(x + 0.5) % 2
    elif pattern == "diagonal":
        share = np.floor((x + y) * 0.75) % 2
    elif pattern == "checks":
        share = (np.floor(y) % 2 + np.floor(x + 0.5) % 2) / 2
    elif pattern in ("dots", "print"):
        row = np.floor(y)
        dx, dy = (x + 0.5 * (row % 2)) % 1 - 0.5, y - row - 0.5
        share = (dx * dx + dy * dy < 0.30**2) * 1.0 if pattern == "dots" else _stamp(garment.motif, dx * 2.3, dy * 2.3)
    elif pattern in ("letter", "emblem") and zone == "chest":
        low = 0.105 + (0.6 * garment.depth if garment.neckline in ("v", "scoop", "tank") else 0.0)  # below the neckline
        share = _stamp(garment.motif, 2 * across / period, 2 * (down - low - period / 2) / period)
    elif pattern == "halves":
        share = (across > 0) * 1.0 if zone != "sleeve" else 0.0
    elif pattern == "band":
        place = down if zone == "chest" else down - 0.02
        share = ((place > 0.13) & (place < 0.26)) * 1.0 if zone == "chest" else ((place > 0.12) & (place < 0.22)) * 1.0
    elif pattern == "chevron":
        share = np.floor((down + np.abs(across % (2 * period) - period)) / period) % 2
    elif pattern == "jacket" and zone == "chest":
        share = (np.abs(across) < 0.035 + 0.05 * np.clip(1 - down / 0.25, 0, 1)) * 1.0
    elif pattern == "seam" and zone == "leg":
        share = (np.abs(np.abs(across) - 0.125) < 0.028) * 1.0
    shape = np.broadcast_shapes(across.shape, down.shape)
    share = np.broadcast_to(np.asarray(share, np.float32), shape)[..., None]
    colour = ground + (second - ground) * share
    if pattern == "stripes" and garment.trim:  # a third colour on every second stripe
        colour = np.where((np.floor(y) % 4 == 2)[..., None], third, colour)
    # Soft folds: brightness only, fixed to the cloth; sums of angles are products, so the waves cost only one row and one column.
    a, b, c, d = across * 23, down * 31, across * 41 + 1, down * 19
    fold = 1 + 0.035 * (np.sin(a) * np.cos(b) + np.cos(a) * np.sin(b)) + 0.03 * (np.sin(c) * np.cos(d) - np.cos(c) * np.sin(d))
    return np.clip(colour * fold[..., None], 0, 255).astype(np.float32)
