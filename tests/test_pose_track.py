"""One person through a clip: a detector of coloured boxes for the logic, MediaPipe on drawn people."""

from __future__ import annotations

import numpy as np
import pytest

from scd.pose.likeness import clothes, histogram, is_cut, likeness, thumbnail
from scd.pose.skeleton import bounding_box
from scd.pose.track import (
    ENLARGE,
    PATIENCE,
    SAME,
    SAME_AFTER_CUT,
    Seen,
    follow,
    from_frames,
    square_around,
    to_frames,
    track_person,
)
from scd.types import BODY, NUM_JOINTS, Pose, UserError

RED, GREEN, BLUE = (220, 30, 30), (30, 200, 30), (30, 30, 220)
WALL = 128
# A standing figure in its own box.
STANDING = np.array([
    (0.5, 0.08), (0.5, 0.2), (0.3, 0.2), (0.2, 0.4), (0.15, 0.55), (0.7, 0.2), (0.8, 0.4), (0.85, 0.55),
    (0.4, 0.55), (0.4, 0.75), (0.4, 0.98), (0.6, 0.55), (0.6, 0.75), (0.6, 0.98),
    (0.45, 0.04), (0.55, 0.04), (0.4, 0.06), (0.6, 0.06),
])  # fmt: skip


def frame(*people, size=(96, 160), wall=WALL) -> np.ndarray:
    """People are (colour, left, top, right, bottom) in pixels; later ones stand in front."""
    image = np.full((*size, 3), wall, np.uint8)
    for colour, left, top, right, bottom in people:
        image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = colour
    return image


def person(colour, x, width=24, height=60, ground=90):
    return colour, x - width // 2, ground - height, x - width // 2 + width, ground


class BoxDetector:
    """Finds each of the three colours as a person who fills its box; remembers the sizes it was shown."""

    def __init__(self, at_least: int = 60) -> None:
        self.shown: list[tuple[int, int]] = []
        self.at_least = at_least  # pixels of a colour that make a person

    def detect(self, image):
        height, width = image.shape[:2]
        self.shown.append((height, width))
        found = []
        for colour in (RED, GREEN, BLUE):
            rows, columns = np.nonzero((image == colour).all(-1))
            if len(rows) < self.at_least:
                continue
            low = np.array([columns.min(), rows.min()])
            high = np.array([columns.max() + 1, rows.max() + 1])
            joints, scores = np.zeros((NUM_JOINTS, 2), np.float32), np.zeros(NUM_JOINTS, np.float32)
            joints[BODY], scores[BODY] = (low + STANDING * (high - low)) / (width, height), 1
            found.append(Pose(joints, scores, (height, width)))
        return sorted(found, key=lambda pose: pose.joints[1, 0])


def places(seen: list[Seen], width=160) -> list[int | None]:
    """Where the neck of the chosen person is, in pixels."""
    return [None if one.pose is None else round(float(one.pose.joints[1, 0]) * width) for one in seen]


def error_of(call, *arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_between_the_detector_sees_only_the_square():
    detector = BoxDetector()
    path = [20 + 4 * t for t in range(30)]
    seen = list(track_person((frame(person(RED, x)) for x in path), detector))
    assert places(seen) == path
    assert detector.shown[0] == (96, 160)
    assert all(height <= 96 and width <= 96 for height, width in detector.shown[1:])
    assert len(detector.shown) == 30
    assert [len(one.people) for one in seen] == [1] + [0] * 29
    # Poses come back in the frame's own fractions.
    for one, x in zip(seen, path, strict=True):
        assert one.pose is not None
        assert one.pose.size == (96, 160)
        left, top, right, bottom = bounding_box(one.pose, BODY) or (0, 0, 0, 0)
        np.testing.assert_allclose([top, bottom], [(30 + 0.04 * 60) / 96, (30 + 0.98 * 60) / 96], atol=1e-5)
        np.testing.assert_allclose([left, right], [(x - 12 + 3.6) / 160, (x - 12 + 20.4) / 160], atol=1e-5)


def test_frames_stream_and_progress_counts():
    """No frame is asked for before the last one is done, and none is held."""
    import weakref

    alive: list[weakref.ref] = []
    counted = []

    def frames():
        for t in range(10):
            assert len([one for one in alive if one() is not None]) <= 1
            image = frame(person(RED, 50 + t))
            alive.append(weakref.ref(image))
            yield image
            del image

    for t, _ in enumerate(track_person(frames(), BoxDetector(), progress=lambda: counted.append(1))):
        assert len(counted) == t + 1
        assert len(alive) == t + 1


def test_largest_is_the_default_and_says_so(caplog):
    clip = [frame(person(RED, 30), person(GREEN, 110, height=80)) for _ in range(3)]
    assert places(list(track_person(iter(clip), BoxDetector()))) == [110] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "2 people in frame 0 of the driving clip: the largest, number 2 from the left, is followed; "
        "--person chooses another"
    ]
    caplog.clear()
    assert places(list(track_person(iter(clip), BoxDetector(), 1))) == [30] * 3
    assert not caplog.records


def test_the_number_counts_in_the_first_frame_with_people():
    clip = [frame(), frame(person(RED, 30), person(GREEN, 110))]
    assert places(list(track_person(iter(clip), BoxDetector(), 2))) == [None, 110]
    message = error_of(list, track_person(iter(clip), BoxDetector(), 3, "a.mp4"))
    assert message == (
        "frame 1 of a.mp4, the first with people, shows 2 person(s): --person 3 is one too many or more"
    )


@pytest.mark.parametrize("wrong", [0, -1, "first", 1.5])
def test_wrong_numbers_are_told_at_once(wrong):
    assert "--person is" in error_of(track_person, iter([]), BoxDetector(), wrong)


def test_no_frames_nobody_and_several_sizes():
    assert error_of(list, track_person(iter([]), BoxDetector(), 1, "a.gif")) == (
        "a.gif has no frames: give a clip with at least one"
    )
    message = error_of(list, track_person(iter([frame()] * 3), BoxDetector(), "largest", "a.gif"))
    assert message.startswith("no person found in any of the 3 frame(s) of a.gif: ")
    message = error_of(
        list, track_person(iter([frame(), frame(size=(96, 100))]), BoxDetector(), name_for_errors="a.gif")
    )
    assert message == "a.gif: frame 1 has 100x96 pixels, the first has 160x96: make all frames one size"


def test_a_lost_person_is_looked_for_in_the_whole_frame_and_found_again():
    detector = BoxDetector()
    path = [40, 42, None, None, 130, 132]
    clip = [frame() if x is None else frame(person(RED, x)) for x in path]
    assert places(list(track_person(iter(clip), detector))) == path
    assert detector.shown[-2] == (96, 160)
    assert detector.shown[-1] < (96, 160)


def test_the_chosen_one_throughout():
    """Two people cross: the one behind vanishes for some frames, is nobody else meanwhile, and comes back."""
    near = range(20, 140, 6)
    for chosen, colour in ((1, RED), (2, GREEN)):
        clip, path = [], []
        for x in near:
            red, green = person(RED, x), person(GREEN, 160 - x)
            clip.append(
                frame(*((red, green) if chosen == 1 else (green, red)))
            )  # the chosen one walks behind
            path.append(x if colour == RED else 160 - x)
        seen = list(track_person(iter(clip), BoxDetector(at_least=800), chosen))
        found = places(seen)
        apart = [abs(160 - 2 * x) > 24 for x in near]
        assert [place for place, far in zip(found, apart, strict=True) if far] == [
            x for x, far in zip(path, apart, strict=True) if far
        ]
        assert None in found
        colours = [
            int(np.argmax(image[60, place])) for image, place in zip(clip, found, strict=True) if place
        ]
        assert set(colours) == {0 if colour == RED else 1}


def test_somebody_else_is_no_replacement_while_the_person_is_away():
    """Red leaves the picture, green stays: red is nobody, and red again when it is back elsewhere."""
    both = [frame(person(RED, x), person(GREEN, 120)) for x in (50, 40, 30)]
    away = [frame(person(GREEN, 120))] * 8
    back = [frame(person(GREEN, 120), person(RED, 60))] * 2
    seen = list(track_person(iter([*both, *away, *back]), BoxDetector(), 1))
    assert places(seen) == [50, 40, 30, *[None] * 8, 60, 60]


def test_after_a_cut_the_most_alike_else_the_largest():
    first = [frame(person(RED, 40), person(GREEN, 110))] * 2
    # The same two from elsewhere, the other way round: clothes tell.
    turned = [frame(person(GREEN, 30, 20, 50), person(RED, 120, 20, 50), wall=20)] * 2
    assert places(list(track_person(iter([*first, *turned]), BoxDetector(), 1))) == [40, 40, 120, 120]
    # Others: the largest.
    others = [frame(person(BLUE, 100, 20, 50), person(GREEN, 135, 30, 80), wall=20)] * 2
    assert places(list(track_person(iter([*first, *others]), BoxDetector(), 1))) == [40, 40, 135, 135]
    # Also when the new shot begins without anybody.
    late = [frame(wall=20), *others]
    assert places(list(track_person(iter([*first, *late]), BoxDetector(), 1))) == [40, 40, None, 135, 135]


def test_a_single_person_may_change_clothes():
    clip = [frame(person(RED, 40)), frame(person(GREEN, 42)), frame(person(BLUE, 44))]
    assert places(list(track_person(iter(clip), BoxDetector()))) == [40, 42, 44]


def test_new_light_is_accepted_after_a_while():
    """Both people change colour for good: the one in the person's place is taken again."""
    before = [frame(person(RED, 40), person(GREEN, 120))] * 3
    after = [frame(person(BLUE, 40), person(GREEN, 120))] * 30
    found = places(list(track_person(iter([*before, *after]), BoxDetector(), 1)))
    assert found[:3] == [40] * 3
    assert set(found[3:18]) == {None}
    assert set(found[18:]) == {40}


def test_the_square_grows_with_the_person_and_shrinks_slowly():
    (tall,) = BoxDetector().detect(frame(person(RED, 80, height=80)))
    left, top, right, bottom = square_around(tall, 0)
    side = ENLARGE * 0.94 * 80
    assert right - left == pytest.approx(side, abs=2)
    assert (top, bottom) == (0, 96)  # what lies outside the picture is cut off
    assert square_around(tall, 140)[2] - square_around(tall, 140)[0] == pytest.approx(140, abs=2)
    (corner,) = BoxDetector().detect(frame((RED, 0, 0, 10, 20)))
    assert square_around(corner, 0)[:2] == (0, 0)

    class ChestOnly(BoxDetector):
        """In its fifth frame it finds no more than the upper half."""

        def detect(self, image):
            found = super().detect(image)
            if len(self.shown) == 5:
                found[0].scores[8:14] = 0
            return found

    seen = list(track_person(iter([frame(person(RED, 80))] * 10), ChestOnly()))
    assert all(one.pose is not None for one in seen)
    assert all(one.pose.scores[BODY].all() for one in seen[5:] if one.pose)


def test_what_was_seen_goes_into_a_pose_file_and_back(tmp_path):
    from scd.pose.files import read_poses, write_poses

    clip = [frame(), frame(person(RED, 30), person(GREEN, 110)), frame(person(RED, 31), person(GREEN, 110)),
            frame(person(GREEN, 110))]  # fmt: skip
    seen = list(track_person(iter(clip), BoxDetector(), 1))
    write_poses(tmp_path / "a.npz", to_frames(seen), 30, (96, 160))
    back = from_frames(read_poses(tmp_path / "a.npz").frames)
    assert (
        [one.pose is None for one in back] == [one.pose is None for one in seen] == [True, False, False, True]
    )
    assert [len(one.people) for one in back] == [len(one.people) for one in seen] == [0, 2, 0, 1]
    for one, other in zip(seen, back, strict=True):
        for a, b in zip([one.pose, *one.people], [other.pose, *other.people], strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                np.testing.assert_array_equal(a.joints, b.joints)


# ---- likeness ----


def test_likeness_of_places_and_sizes():
    detect = BoxDetector().detect
    (here,) = detect(frame(person(RED, 60)))
    (moved,) = detect(frame(person(RED, 64)))
    (arm_length,) = detect(frame(person(RED, 60 + 30)))
    (far,) = detect(frame(person(RED, 140)))
    assert likeness(here, here) == pytest.approx(1)
    scores = [likeness(here, other) for other in (here, moved, arm_length, far)]
    assert sorted(scores, reverse=True) == scores
    assert scores[1] > 0.8
    assert scores[2] < 0.55
    nobody = Pose(here.joints, np.zeros(NUM_JOINTS, np.float32), here.size)
    assert likeness(here, nobody) == likeness(nobody, here) == 0


def test_clothes_are_the_colours_of_trunk_and_thighs():
    image = frame(person(RED, 40), person(GREEN, 110))
    red, green = BoxDetector().detect(image)
    a, b = clothes(image, red), clothes(image, green)
    assert a is not None
    assert b is not None
    assert a.sum() == pytest.approx(1, abs=1e-5)
    assert np.minimum(a, b).sum() < 0.4
    brighter = clothes(np.minimum(image.astype(int) + 12, 255).astype(np.uint8), red)
    assert brighter is not None
    assert np.minimum(a, brighter).sum() > 0.75
    hidden = Pose(
        red.joints, np.where(np.arange(NUM_JOINTS) == 8, 0, red.scores).astype(np.float32), red.size
    )
    assert clothes(image, hidden) is None


def test_histogram_bins_by_hand():
    assert histogram(np.array([[0, 0, 0]], np.uint8)).nonzero()[0].tolist() == [0]
    assert histogram(np.array([[255, 255, 255]], np.uint8)).nonzero()[0].tolist() == [63]
    half = histogram(np.array([[0, 0, 170 + 42]], np.uint8))
    assert half.nonzero()[0].tolist() == [2, 3]
    assert half[3] == pytest.approx(42 / 85, abs=1e-5)


def test_cuts_by_pixels_and_by_colours():
    generator = np.random.default_rng(0)
    scene = generator.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    noisy = np.clip(scene.astype(int) + generator.integers(-8, 9, scene.shape), 0, 255).astype(np.uint8)
    assert not is_cut(thumbnail(scene), thumbnail(noisy))
    assert not is_cut(thumbnail(frame(person(RED, 40))), thumbnail(frame(person(RED, 60))))
    assert is_cut(thumbnail(frame(person(RED, 40))), thumbnail(frame(person(RED, 40), wall=60)))
    halves = frame((RED, 0, 0, 80, 96), wall=30)
    assert is_cut(thumbnail(halves), thumbnail(np.ascontiguousarray(halves[:, ::-1])))


# ---- the real detector ----


@pytest.fixture(scope="module")
def mediapipe():
    from scd.pose.detect import get_detector

    return get_detector()


def beside(kind: str, num_frames: int, seeds=(1, 2), size=256) -> tuple[list[np.ndarray], np.ndarray]:
    """Two drawn people side by side, T frames (size, size * 3 / 2, 3), and their joints, pixels."""
    from scd.world import Scene

    views = [Scene.from_seed(seed).clip(kind, num_frames, 10, size) for seed in seeds]
    left = size // 8
    frames, truth = [], []
    for pair in zip(*views, strict=True):
        frames.append(np.hstack([view.image[:, left : size - left] for view in pair]))
        moved = [view.pose.joints * size + ((size - 2 * left) * i - left, 0) for i, view in enumerate(pair)]
        truth.append(moved)
    return frames, np.array(truth)


@pytest.mark.parametrize("chosen", [1, 2])
def test_two_drawn_people_the_chosen_one_throughout(mediapipe, chosen):
    frames, truth = beside("dance", 10)
    seen = list(track_person(iter(frames), mediapipe, chosen))
    assert len(seen[0].people) == 2
    size = np.array([frames[0].shape[1], frames[0].shape[0]])
    for t, one in enumerate(seen):
        assert one.pose is not None
        sure = one.pose.scores[BODY] >= 0.3
        gaps = [
            np.median(np.hypot(*(one.pose.joints[BODY] * size - truth[t, i, BODY])[sure].T)) for i in (0, 1)
        ]
        assert gaps[chosen - 1] < 0.03 * 256
        assert gaps[2 - chosen] > 0.2 * 256


def test_a_cut_between_two_drawn_scenes(mediapipe):
    from scd.world import Scene

    clips = [[view.image for view in Scene.from_seed(seed).clip("wave", 4, 10, 256)] for seed in (3, 5)]
    seen = list(track_person(iter([*clips[0], *clips[1]]), mediapipe))
    assert all(one.pose is not None for one in seen)
    assert [bool(one.people) for one in seen] == [True, False, False, False, True, False, False, False]


def test_poses_without_pictures_are_followed_in_any_order():
    """The nearest from frame to frame; a gap where the person is not; after 15 frames whoever is largest."""
    first, second = (posed(x) for x in (40, 120))
    frames = [[second, first], [first, second], [second], [posed(44), second], [], [second, posed(48)]]
    assert [round(p.joints[1, 0] * 160) if p else None for p in follow(frames, 1)] == [
        40,
        40,
        None,
        44,
        None,
        48,
    ]
    assert [round(p.joints[1, 0] * 160) if p else None for p in follow(frames, 2)] == [120] * 4 + [None, 120]
    away = [[first, second], *[[second]] * (PATIENCE + 2)]
    assert [p is None for p in follow(away, 1)] == [False, *[True] * PATIENCE, False, False]
    assert "the first with people, shows 2 person(s): --person 3" in error_of(follow, frames, 3)
    assert follow([[], []]) == [None, None]
    far = posed(64)
    assert SAME_AFTER_CUT <= likeness(first, far) < SAME, "too far for a frame, not for two"
    assert follow([[first], [far]], 1)[1] is None
    assert follow([[first], [], [far]], 1)[2] is far
    weak = Pose(first.joints, first.scores * np.float32(0.2), first.size)
    assert follow([[weak], [first, second]], 1) == [None, first], "whose joints are all guesses is nobody"
    assert follow([[weak, weak]], 2) == [weak], "unless there is nobody else"


def posed(x) -> Pose:
    """Standing, with the middle at x of 160 pixels."""
    joints, scores = np.zeros((NUM_JOINTS, 2), np.float32), np.zeros(NUM_JOINTS, np.float32)
    joints[BODY] = (STANDING - 0.5) * (24 / 160, 60 / 96) + (x / 160, 0.5)
    scores[BODY] = 1
    return Pose(joints, scores, (96, 160))
