"""How try-on datasets lie on a disk: VITON-HD and DressCode. A layout is nothing but lists of pairs.

Spellings differ between mirrors: folder names are compared without case, with `-` as `_` and without a last
`s` (agnostic-mask, agnostic_masks), files by their stems (a list that says .jpg finds .png).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scd.data.layouts import own_manifest
from scd.data.manifest import is_manifest, layout_in, real
from scd.data.pairs import WORLD_CARD, TryOnLayout, TryOnPair, read_pairs, with_guides
from scd.media.files import PICTURES, reading
from scd.types import UserError

# DressCode's folders, and what scd calls the garments in them
CATEGORIES = {"upper_body": "upper", "lower_body": "lower", "dresses": "dress"}
_ENDS = re.compile(r"_(mask|keypoints|rendered)$")  # of stems: 00006_00_mask.png, 00006_00_keypoints.json

Row = tuple[int, str, str, str]  # of a list of pairs: its line, person, garment, and a third word or ""
Files = dict[str, Path]  # by key: what the files of one person or garment have in common

log = logging.getLogger("scd")


def viton_hd(root: Path) -> TryOnLayout:
    """VITON-HD: {train,test}/{image,cloth,agnostic-mask,openpose_json}, train_pairs.txt, test_pairs.txt."""
    root = next((root / name for name in ("VITON-HD", "zalando-hd-resized") if (root / name).is_dir()), root)
    own = (root / WORLD_CARD).is_file()
    problems: list[str] = []
    found: dict[str, tuple[TryOnPair, ...]] = {}
    for name in ("train", "test"):
        place = root / name
        lists = _Lists((root, place))
        if not place.is_dir():
            found |= {name: (), f"{name} unpaired": ()}
            if lists.there(name):
                problems.append(f"{name}: the folder is missing, though {lists.there(name)[0].name} is there")
            continue
        folders = _Folders(place)
        people = folders.need("image", "people")
        part = _Part(
            root=root, place=place, category="upper", people=people,
            garments=folders.need("cloth", "garments"), regions=folders.files("agnostic_mask"),
            poses=folders.files("openpose_json", (".json",)), truths=folders.files("truth"),
            labels=folders.files("image_parse") if own else {},
            truth_labels=folders.files("truth_parse") if own else {}, shown=("image/{}", "cloth/{}"),
        )  # fmt: skip
        found[name], found[f"{name} unpaired"] = part.pairs(lists, name, problems, people)
    if not (root / "train").is_dir() and not (root / "test").is_dir():
        raise UserError(
            f"{root}: not VITON-HD's layout, which is train/image/00006_00.jpg, train/cloth/00006_00.jpg and "
            "train_pairs.txt; name the folder that holds train/ and test/"
        )
    return TryOnLayout(
        "vitonhd", root, found["train"], found["test"], found["test unpaired"], tuple(problems)
    )


def dress_code(root: Path) -> TryOnLayout:
    """DressCode: {upper_body,lower_body,dresses}/images/013563_0.jpg (person), 013563_1.jpg (garment),
    agnostic_masks, keypoints, and the lists of pairs in each."""
    root = root / "DressCode" if (root / "DressCode").is_dir() else root
    problems: list[str] = []
    training, paired, unpaired = [], [], []
    there = [name for name in CATEGORIES if (root / name).is_dir()]
    if not there:
        raise UserError(
            f"{root}: not DressCode's layout, which is upper_body/images/013563_0.jpg and 013563_1.jpg; name "
            "the folder that holds upper_body, lower_body and dresses"
        )
    problems += [f"{name}: the folder is missing" for name in CATEGORIES if name not in there]
    own = (root / WORLD_CARD).is_file()
    for name in there:
        place = root / name
        folders = _Folders(place, numbered=True)
        part = _Part(
            root=root, place=place, category=CATEGORIES[name],
            people=folders.need("image", "people and garments", "_0"),
            garments=folders.need("image", "people and garments", "_1") | folders.files("cloth"),
            regions=folders.files("agnostic_mask"), poses=folders.files("keypoint", (".json",)),
            truths=folders.files("truth"), labels=folders.files("label_map") if own else {},
            truth_labels=folders.files("truth_label_map") if own else {},
            shown=("images/{}_0", "images/{}_1"), numbered=True,
        )  # fmt: skip
        lists = _Lists((place,), for_all=root)
        first, second = part.pairs(lists, "test", problems)
        tested = {pair.person for pair in (*first, *second)}
        others = [key for key, path in part.people.items() if path not in tested]
        if tested and not lists.there("train"):
            problems.append(
                f"{name}: has a list to test with and none to train with: {len(others)} people whom no list "
                "names are to train with"
            )
        training += part.pairs(lists, "train", problems, others)[0]
        paired += first
        unpaired += second
    return TryOnLayout("dresscode", root, tuple(training), tuple(paired), tuple(unpaired), tuple(problems))


TRYON_LAYOUTS = {"vitonhd": viton_hd, "dresscode": dress_code}


def guess_tryon(root: Path) -> str | None:
    """The kind of try-on dataset that seems to lie at `root`, however incomplete; None = none."""
    for place in (root, root / "VITON-HD", root / "zalando-hd-resized", root / "DressCode"):
        if any((place / name).is_dir() and _Folders(place / name).named("image") for name in CATEGORIES):
            return "dresscode"
        parts = [place / name for name in ("train", "test")]
        if any(part.is_dir() and _Folders(part).named("cloth") for part in parts):
            return "vitonhd"
        if any(_Lists((place, *parts)).there(name) for name in ("train", "test")):
            return "vitonhd"
    return None


def find_pairs(root: str | Path, kind: str | None = None) -> TryOnLayout:
    """The pairs of the try-on dataset at `root`, or of a manifest; without a kind, the layout that seems to
    lie there. Raises UserError when there is none, or when a folder is missing that nothing works without."""
    if not str(root):
        raise UserError("--data.root: name the folder of the dataset, or its manifest")
    path = Path(root).expanduser()
    if is_manifest(path) and not path.is_dir():
        if (listed := layout_in(path)) not in TRYON_LAYOUTS:
            raise UserError(
                f"{path}: lists {listed}'s clips, no try-on pairs; use the preset {listed}-stage1"
            )
        if kind not in (None, listed):
            raise UserError(f"{path}: lists pairs of {listed}, not of {kind}: say {listed}")
        return _require_apart(read_pairs(real(path)))
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder; check the name")
    kind = kind or guess_tryon(path)
    if kind is None:
        raise UserError(
            f"{path}: neither VITON-HD's layout (train/image, train/cloth, train_pairs.txt) nor DressCode's "
            "(upper_body/images, upper_body/train_pairs.txt)"
        )
    layout = TRYON_LAYOUTS[kind](path)
    manifest = own_manifest(layout.root)
    if manifest.is_file() and layout_in(manifest) == kind:
        layout = with_guides(layout, read_pairs(manifest))
    return _apart(layout)


def _apart(layout: TryOnLayout) -> TryOnLayout:
    """Without the training pairs of people who are to test with, whatever the lists say."""
    if not (both := _trained_and_tested(layout)):
        return layout
    left_out = set(both)
    training = tuple(pair for pair in layout.training if pair not in left_out)
    log.warning(
        "%s: %d pairs to train with are left out, since lists to test with name their people too: %s",
        layout.root, len(both), _some_names(both),
    )  # fmt: skip
    return replace(layout, training=training)


def _require_apart(layout: TryOnLayout) -> TryOnLayout:
    """The same of a manifest, whose lines are somebody's own. Raises UserError."""
    if both := _trained_and_tested(layout):
        raise UserError(
            f"{layout.listed_in}: has people both to train and to test with, who would be trained on: "
            f"{_some_names(both)}; remove their lines of one of the two"
        )
    return layout


def _trained_and_tested(layout: TryOnLayout) -> list[TryOnPair]:
    tested = {pair.person for pair in (*layout.paired, *layout.unpaired)}
    return [pair for pair in layout.training if pair.person in tested]


def _some_names(pairs: Sequence[TryOnPair]) -> str:
    return ", ".join(pair.name for pair in pairs[:5]) + (" ..." if len(pairs) > 5 else "")


@dataclass(frozen=True)
class _Part:
    """The files of VITON-HD's train or test, or of a category of DressCode. A person and the garment worn
    have one key."""

    root: Path
    place: Path
    category: str
    people: Files
    garments: Files
    regions: Files
    poses: Files
    truths: Files  # of unpaired pairs
    labels: Files  # of people
    truth_labels: Files
    shown: tuple[str, str]  # how files of a key are called: person, garment
    numbered: bool = False

    def pairs(
        self, lists: _Lists, part: str, problems: list[str], everybody: Iterable[str] = ()
    ) -> tuple[tuple[TryOnPair, ...], tuple[TryOnPair, ...]]:
        """Paired: all people whom a list of this part names, or `everybody` where there is no list; and the
        pairs of the unpaired list, once each. What is missing is added to `problems`."""
        rows = {
            path: [row for row in _read_list(path) if path.parent != lists.for_all or self._concerns(row)]
            for path in lists.there(part)
        }
        people: dict[str, str] = {}  # by key: where it is named first
        for path, lines in rows.items():
            for number, person, *_ in lines:
                people.setdefault(_key(person, self.numbered), f"{self._name(path)}, line {number}")
        if not rows:
            people = dict.fromkeys(everybody, f"{self._name(self.place)}, which has no list of pairs")
        explicit = [path for path in rows if path.stem.endswith("_unpaired")]
        named: dict[tuple[str, str], str] = {}
        for path in explicit or rows:
            for number, person, garment, _ in rows[path]:
                pair = _key(person, self.numbered), _key(garment, self.numbered)
                named.setdefault(pair, f"{self._name(path)}, line {number}")
        others = [(where, *pair) for pair, where in named.items()]
        paired = self._complete(((where, key, key) for key, where in people.items()), True, problems)
        # A list that is not said to be unpaired may be a paired one: VITON-HD's for training, and mirrors'
        unpaired = [(where, key, other) for where, key, other in others if explicit or key != other]
        return paired, self._complete(unpaired, False, problems)

    def _concerns(self, row: Row) -> bool:
        """Whether a line of a list for all categories is about this one. Its third word says so, DressCode's
        number of it or the folder; else the person, whose number lies in one folder only."""
        _, person, _, word = row
        folder = dict(zip("012", CATEGORIES, strict=True)).get(word, word)
        if folder in CATEGORIES:
            return folder == self.place.name
        return _key(person, self.numbered) in self.people

    def _complete(
        self, rows: Iterable[tuple[str, str, str]], paired: bool, problems: list[str]
    ) -> tuple[TryOnPair, ...]:
        """The pairs whose files are there."""
        found = []
        for where, person, garment in rows:
            asked = ((person, self.people, self.shown[0]), (garment, self.garments, self.shown[1]))
            lacking = [
                self._name(self.place / name.format(key)) for key, files, name in asked if key not in files
            ]
            if not lacking:
                found.append(self._pair(person, garment, paired))
            elif (line := f"{where}: the picture {' and '.join(lacking)} is missing") not in problems:
                problems.append(line)
        return tuple(found)

    def _pair(self, person: str, garment: str, paired: bool) -> TryOnPair:
        truths, labels = (self.people, self.labels) if paired else (self.truths, self.truth_labels)
        path = self.people[person]
        return TryOnPair(
            name=f"{self.place.name}/{path.stem}" if self.numbered else path.stem, category=self.category,
            person=path, garment=self.garments[garment], paired=paired, region=self.regions.get(person),
            pose=self.poses.get(person), truth=truths.get(person), labels=labels.get(person),
        )  # fmt: skip

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


class _Folders:
    """The folders of a part by name, whatever their spelling, and their files by key."""

    def __init__(self, place: Path, numbered: bool = False):
        self.place, self.numbered = place, numbered
        with reading(place):
            self.there = [folder for folder in sorted(place.iterdir()) if folder.is_dir()]

    def named(self, name: str) -> list[Path]:
        return [folder for folder in self.there if _plain(folder.name) == name]

    def files(self, name: str, endings: tuple[str, ...] = PICTURES, end: str = "") -> Files:
        """Of two spellings side by side the files of both; `end`: only stems that end so."""
        found: Files = {}
        for folder in self.named(name):
            with reading(folder):
                for path in sorted(folder.iterdir()):
                    fits = path.suffix.lower() in endings and _ENDS.sub("", path.stem).endswith(end)
                    if fits and not path.name.startswith("."):
                        found.setdefault(_key(path.name, self.numbered), path)
        return found

    def need(self, name: str, what: str, end: str = "") -> Files:
        found = self.files(name, end=end)
        if not found:
            place = (self.named(name) or [self.place / name])[0]
            gone = "holds no pictures" if place.is_dir() else "is missing"
            raise UserError(f"{place} {gone}: {what} lie there; copy the folder again")
        return found


class _Lists:
    """The lists of pairs: in the dataset's folder, in some mirrors in that of the part. `for_all`: where
    lists of all categories lie, for a part that has none of its own."""

    def __init__(self, places: Iterable[Path], for_all: Path | None = None):
        self.places, self.for_all = tuple(places), for_all

    def there(self, part: str) -> list[Path]:
        names = [f"{part}_pairs{end}.txt" for end in ("", "_paired", "_unpaired")]
        found = [path for name in names for place in self.places if (path := place / name).is_file()]
        if not found and self.for_all is not None:
            return _Lists((self.for_all,)).there(part)
        return found


_ENDINGS = "|".join(ending[1:] for ending in PICTURES)
# Of a line of a list: file names, spaces in them, or single words
_SPACED = re.compile(rf"\S[^\t]*?\.(?:{_ENDINGS})(?=\s|$)|\S+", re.IGNORECASE)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").removesuffix("s")


def _key(name: str, numbered: bool) -> str:
    """What the files of a person and of the garment worn have in common: 00006_00; DressCode's number."""
    stem = _ENDS.sub("", name.rsplit(".", 1)[0])
    return stem.rsplit("_", 1)[0] if numbered else stem


def _words(line: str) -> list[str]:
    """The names in a line; spaces belong to them only where no other reading gives two pictures."""
    words, spaced = line.split(), _SPACED.findall(line)
    two = len(spaced) > 1 and all(Path(name).suffix.lower() in PICTURES for name in spaced[:2])
    return spaced if two else words


def _read_list(path: Path) -> list[Row]:
    """The rows of a list. Raises UserError naming a line that has no two names."""
    with reading(path):
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        names = [Path(name).name for name in _words(line)]
        if not names:
            continue
        if len(names) < 2:
            raise UserError(f"{path}, line {number}: needs two names, a person's and a garment's; mend it")
        rows.append((number, names[0], names[1], names[2] if len(names) > 2 else ""))
    return rows
