"""Poses: tables against other people's definitions, drawings by the pixel, files, detectors with fakes."""

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import conftest
import numpy as np
import pytest
from mirrored import FACE_MIRROR, MIRROR, mirror

from scd.pose import detect as detect_module
from scd.pose.detect import (
    COCO_BODY,
    MEDIAPIPE_BODY,
    MEDIAPIPE_FACE,
    DWPoseDetector,
    MediaPipeDetector,
    detect_one,
    get_detector,
)
from scd.pose.draw import draw_pose, overlay_pose
from scd.pose.files import PoseFile, read_poses, write_poses
from scd.pose.skeleton import (
    BODY_COLOURS,
    BODY_LIMBS,
    FACE_PARTS,
    HAND_BONES,
    HAND_COLOURS,
    bounding_box,
    empty_pose,
    inverse_box,
    num_present,
    pose_scale,
    to_crop,
    with_neck,
)
from scd.types import BODY, BODY_NAMES, FACE, LEFT_HAND, NUM_JOINTS, RIGHT_HAND, Pose, UserError


def pose_of(points: dict[int, tuple[float, float]], size=(128, 128), score: float = 1.0) -> Pose:
    joints, scores = np.zeros((NUM_JOINTS, 2), np.float32), np.zeros(NUM_JOINTS, np.float32)
    for joint, place in points.items():
        joints[joint], scores[joint] = place, score
    return Pose(joints, scores, size)


def random_pose(seed: int, size=(120, 90), absent: float = 0.2) -> Pose:
    generator = np.random.default_rng(seed)
    scores = np.where(generator.random(NUM_JOINTS) < absent, 0, generator.random(NUM_JOINTS)).astype(
        np.float32
    )
    joints = generator.random((NUM_JOINTS, 2)).astype(np.float32) * (scores[:, None] > 0)
    return Pose(joints.astype(np.float32), scores, size)


def assert_same(a: Pose, b: Pose, atol: float = 0.0) -> None:
    np.testing.assert_allclose(a.joints, b.joints, atol=atol)
    np.testing.assert_allclose(a.scores, b.scores, atol=atol)
    assert a.size == b.size


def error_of(call, *arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- skeleton ----


def test_skeleton_imports_neither_opencv_nor_mediapipe():
    for module, absent in (("skeleton", "cv2 mediapipe torch PIL"), ("detect", "mediapipe rtmlib torch")):
        code = f"import sys, scd.pose.{module}; print(set('{absent}'.split()) & set(sys.modules))"
        assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_limbs_span_the_body_and_bones_the_hand():
    names = {frozenset((BODY_NAMES[a], BODY_NAMES[b])) for a, b in BODY_LIMBS}
    for side in ("right", "left"):
        arm = ["neck", f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist"]
        leg = ["neck", f"{side}_hip", f"{side}_knee", f"{side}_ankle"]
        head = ["neck", "nose", f"{side}_eye", f"{side}_ear"]
        for chain in (arm, leg, head):
            assert {frozenset(pair) for pair in pairwise(chain)} <= names
    assert len(names) == len(BODY_LIMBS) == 17 == len(BODY_COLOURS) - 1
    # The drawings that public networks learnt from: the person's right arm is orange to yellow, the left one
    # green, the right leg green to cyan, the left one blue, the head blue to pink.
    colours = {(BODY_NAMES[a], BODY_NAMES[b]): BODY_COLOURS[i] for i, (a, b) in enumerate(BODY_LIMBS)}
    assert colours["neck", "right_shoulder"] == (255, 0, 0)
    assert colours["neck", "left_shoulder"] == (255, 85, 0)
    assert colours["right_elbow", "right_wrist"] == (255, 255, 0)
    assert colours["left_elbow", "left_wrist"] == (85, 255, 0)
    assert colours["right_knee", "right_ankle"] == (0, 255, 170)
    assert colours["left_knee", "left_ankle"] == (0, 85, 255)
    assert colours["neck", "nose"] == (0, 0, 255)
    assert colours["right_eye", "right_ear"] == (170, 0, 255)
    assert colours["left_eye", "left_ear"] == (255, 0, 170)
    assert len(HAND_BONES) == 20 == len(set(HAND_COLOURS))
    assert sorted(stop for _, stop in HAND_BONES) == list(range(1, 21))
    assert [bone for bone in HAND_BONES if bone[0] == 0] == [(0, 1), (0, 5), (0, 9), (0, 13), (0, 17)]
    assert HAND_BONES[4:8] == ((0, 5), (5, 6), (6, 7), (7, 8))
    assert HAND_COLOURS[0] == (255, 0, 0)
    assert HAND_COLOURS[10] == (0, 255, 255)
    assert [i for part in FACE_PARTS.values() for i in part] == list(range(68))


def test_mirror_swaps_the_sides_and_undoes_itself():
    np.testing.assert_array_equal(MIRROR[MIRROR], np.arange(NUM_JOINTS))
    for here, there in enumerate(MIRROR[BODY]):
        assert (
            BODY_NAMES[here].replace("right", "?").replace("left", "right").replace("?", "left")
            == BODY_NAMES[there]
        )
    for part, mirrored in (("right_brow", "left_brow"), ("right_eye", "left_eye"), ("jaw", "jaw")):
        assert {FACE_MIRROR[i] for i in FACE_PARTS[part]} == set(FACE_PARTS[mirrored])
    assert MIRROR[LEFT_HAND].tolist() == list(range(RIGHT_HAND.start, RIGHT_HAND.stop))
    pose = random_pose(0)
    assert_same(mirror(mirror(pose)), pose, atol=1e-6)
    flipped = mirror(pose_of({2: (0.1, 0.3)}))
    assert flipped.scores.nonzero()[0].tolist() == [5]
    np.testing.assert_allclose(flipped.joints[5], [0.9, 0.3])
    assert (flipped.joints[flipped.scores == 0] == 0).all()


def test_face_mirror_fits_a_symmetric_face():
    """Eyes run from their outer (right) corner over the top, the mouth from the person's right corner."""

    def ring(x: float, y: float, count: int, radius: float, inward: int) -> list[tuple[float, float]]:
        angles = np.pi - inward * 2 * np.pi * np.arange(count) / count
        return [(x + radius * float(np.cos(a)), y - radius * float(np.sin(a)) * inward) for a in angles]

    jaw = [(0.5 - 0.4 * float(np.cos(t)), 0.4 + 0.4 * float(np.sin(t))) for t in np.linspace(0, np.pi, 17)]
    brows = [(x, 0.3) for x in (0.15, 0.2, 0.25, 0.3, 0.35, 0.65, 0.7, 0.75, 0.8, 0.85)]
    nose = [
        (0.5, 0.4),
        (0.5, 0.45),
        (0.5, 0.5),
        (0.5, 0.55),
        *((x, 0.6) for x in (0.4, 0.45, 0.5, 0.55, 0.6)),
    ]
    right_eye = ring(0.3, 0.4, 6, 0.05, 1)
    left_eye = [(1 - x, y) for x, y in (right_eye[i] for i in (3, 2, 1, 0, 5, 4))]
    mouth = [*ring(0.5, 0.7, 12, 0.1, 1), *ring(0.5, 0.7, 8, 0.06, 1)]
    points = [*jaw, *brows, *nose, *right_eye, *left_eye, *mouth]
    pose = pose_of({FACE.start + i: point for i, point in enumerate(points)})
    assert_same(mirror(pose), pose, atol=1e-6)


def test_bounding_box_scale_and_count():
    pose = pose_of({0: (0.5, 0.1), 2: (0.2, 0.3), 13: (0.6, 0.9), 90: (0.95, 0.5)}, size=(200, 100))
    assert bounding_box(pose) == pytest.approx((0.2, 0.1, 0.95, 0.9))
    assert bounding_box(pose, BODY) == pytest.approx((0.2, 0.1, 0.6, 0.9))
    assert bounding_box(pose, FACE) is None
    assert pose_scale(pose) == pytest.approx(160)
    assert pose_scale(empty_pose((200, 100))) == 0
    assert num_present(pose) == 3
    weak = pose_of({0: (0.5, 0.1)}, score=0.2)
    assert bounding_box(weak) is None
    assert bounding_box(weak, min_score=0.1) is not None


def test_neck_is_the_middle_of_the_shoulders():
    pose = pose_of({2: (0.2, 0.3), 5: (0.6, 0.5)})
    pose.scores[5] = 0.25
    before = pose.joints.copy()
    joints, scores = with_neck(pose.joints, pose.scores)
    np.testing.assert_allclose(joints[1], [0.4, 0.4])
    assert scores[1] == 0.25
    np.testing.assert_array_equal(pose.joints, before)
    alone = pose_of({2: (0.2, 0.3), 1: (0.9, 0.9)})
    joints, scores = with_neck(alone.joints, alone.scores)
    assert scores[1] == 0
    assert joints[1].tolist() == [0, 0]


def test_crop_and_enlarge():
    pose = pose_of({0: (0.5, 0.25), 3: (0.75, 0.5)}, size=(100, 200))
    cropped = to_crop(pose, (0.5, 0.0, 1.0, 0.5), (50, 100))
    np.testing.assert_allclose(cropped.joints[[0, 3]], [[0, 0.5], [0.5, 1]])
    assert cropped.size == (50, 100)
    assert cropped.scores.nonzero()[0].tolist() == [0, 3]
    enlarged = to_crop(pose, (-0.5, -0.5, 1.5, 1.5), (200, 400))
    np.testing.assert_allclose(enlarged.joints[0], [0.5, 0.375])
    assert (cropped.joints[cropped.scores == 0] == 0).all()
    box = (-0.3, 0.2, 0.9, 0.7)
    many = random_pose(1)
    assert_same(to_crop(to_crop(many, box, (7, 9)), inverse_box(box), many.size), many, atol=1e-5)
    with pytest.raises(ValueError, match="empty box"):
        to_crop(pose, (0.5, 0, 0.5, 1), (10, 10))


# ---- drawing ----


def test_limbs_and_joints_have_openpose_colours_in_place():
    for limb, (start, stop) in enumerate(BODY_LIMBS):
        drawing = draw_pose(pose_of({start: (0.25, 0.5), stop: (0.75, 0.5)}, size=(256, 256)))
        assert drawing.dtype == np.uint8
        assert drawing.shape == (256, 256, 3)
        assert drawing[127:129, 128].tolist() == [[round(0.6 * c) for c in BODY_COLOURS[limb]]] * 2
        assert drawing[127, 64].tolist() == list(BODY_COLOURS[start])
        assert drawing[127, 191].tolist() == list(BODY_COLOURS[stop])
        assert not drawing[:120].any()
        assert not drawing[136:].any()
        assert not drawing[:, :58].any()
        assert not drawing[:, 198:].any()


@pytest.mark.parametrize(
    ("size", "width"), [((64, 64), 1), ((256, 128), 3.8), ((512, 512), 7.7), ((384, 1024), 15.4)]
)
def test_limbs_are_as_wide_as_the_picture_asks(size, width):
    drawing = draw_pose(pose_of({1: (0.1, 0.5), 2: (0.9, 0.5)}), size)
    covered = drawing[:, size[1] // 2].max(-1).astype(float) / 153
    assert covered.sum() == pytest.approx(width + 1.4, abs=0.5)  # OpenCV's smooth edges add 1.4 pixels


def test_drawing_moves_by_fractions_of_a_pixel():
    def middle(shift: float) -> float:
        drawing = draw_pose(pose_of({0: ((32 + shift) / 64, 0.5)}), (64, 64)).max(-1).astype(float)
        return float((drawing * (np.arange(64) + 0.5)).sum() / drawing.sum())

    places = [middle(shift) for shift in (0, 0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(places, [32, 32.25, 32.5, 32.75, 33], atol=0.15)
    assert (np.diff(places) > 0.05).all()


def test_joints_that_are_no_numbers_are_absent():
    whole = conftest.make_pose(0)
    joints, scores = whole.joints.copy(), whole.scores.copy()
    joints[4], scores[4] = np.nan, 0
    absent = draw_pose(Pose(joints, scores, whole.size))
    scores[4] = 1
    assert np.array_equal(draw_pose(Pose(joints, scores, whole.size)), absent)


def test_absent_joints_take_their_limbs_along():
    assert not draw_pose(empty_pose((64, 64))).any()
    weak = pose_of({2: (0.2, 0.5), 3: (0.8, 0.5)}, score=0.29)
    assert not draw_pose(weak).any()
    assert draw_pose(weak, min_score=0.2).any()
    alone = draw_pose(pose_of({2: (0.2, 0.5)}))
    assert alone.any()
    assert not alone[:, 64:].any()


@pytest.mark.parametrize("part", [LEFT_HAND, RIGHT_HAND, FACE])
def test_parts_smaller_than_three_pixels_are_left_out(part):
    count = part.stop - part.start
    for extent, drawn in ((2.9, False), (3.1, True)):
        across = np.linspace(0.5, 0.5 + extent / 128, count)
        pose = pose_of({part.start + i: (float(x), 0.5) for i, x in enumerate(across)})
        assert draw_pose(pose).any() == drawn


def test_hands_are_coloured_and_the_face_is_white():
    wrist, tip = LEFT_HAND.start, LEFT_HAND.start + 1
    drawing = draw_pose(pose_of({wrist: (0.25, 0.5), tip: (0.75, 0.5)}), (255, 255))
    assert drawing[127, 128, 0] > 220  # a line one pixel wide, smoothed
    assert (drawing[..., 1:] == 0).all()
    face = draw_pose(pose_of({FACE.start: (0.25, 0.25), FACE.start + 30: (0.75, 0.75)}), (256, 256))
    assert face[63:65, 63:65].min() > 150
    assert face[191:193, 191:193].min() > 150
    assert face[64, 64].tolist() == [255, 255, 255]
    assert (face.min(-1) == face.max(-1)).all()


def test_several_people_sizes_and_limbs_that_leave_the_picture():
    left, right = pose_of({0: (0.2, 0.5)}), pose_of({0: (0.8, 0.5)})
    both = draw_pose([left, right])
    np.testing.assert_array_equal(both, draw_pose(left) | draw_pose(right))
    assert draw_pose([], (16, 24)).shape == (16, 24, 3)
    with pytest.raises(ValueError, match="size"):
        draw_pose([])
    out = draw_pose(pose_of({2: (0.5, 0.5), 3: (1.5, 0.5), 0: (-1e9, 1e9)}))
    assert out[63:65, 127].any()  # drawn up to the edge


def test_overlay_shows_both():
    grey = np.full((64, 64, 3), 100, np.uint8)
    pose = pose_of({0: (0.5, 0.5)})
    image = overlay_pose(grey, pose, strength=1.0)
    assert (grey == 100).all()
    assert (image[:20] == 100).all()
    assert image[32, 32].tolist() == [255, 0, 0]
    np.testing.assert_array_equal(overlay_pose(grey, []), grey)


def test_drawing_is_fast():
    pose = random_pose(3, size=(128, 128), absent=0)
    pose.scores[:] = 1
    times = []
    for _ in range(20):
        start = time.perf_counter()
        draw_pose(pose)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.002  # measured 0.22 ms; training draws each sample anew


# ---- our own files ----


def test_pose_files_come_back_exactly(tmp_path):
    frames = [[random_pose(1), random_pose(2)], [], [empty_pose((120, 90)), random_pose(3)], [random_pose(4)]]
    path = tmp_path / "new" / "poses.npz"
    write_poses(path, frames, fps=29.97)
    back = read_poses(path)
    assert isinstance(back, PoseFile)
    assert back.fps == 29.97
    assert back.size == (120, 90)
    assert [len(frame) for frame in back.frames] == [2, 0, 2, 1]
    for frame, expected in zip(back.frames, frames, strict=True):
        for a, b in zip(frame, expected, strict=True):
            assert_same(a, b)
    with np.load(path, allow_pickle=False) as archive:
        assert {name: (archive[name].shape, archive[name].dtype.kind) for name in archive.files} == {
            "joints": ((4, 2, 128, 2), "f"),
            "scores": ((4, 2, 128), "f"),
            "size": ((2,), "i"),
            "fps": ((), "f"),
            "format": ((), "U"),
        }
    assert [p.name for p in path.parent.iterdir()] == ["poses.npz"]


def test_writing_pose_files_checks_name_size_and_existence(tmp_path):
    write_poses(tmp_path / "nobody.npz", [[], []], size=(10, 20))
    assert read_poses(tmp_path / "nobody.npz") == PoseFile([[], []], (10, 20))
    assert "exists already" in error_of(write_poses, tmp_path / "nobody.npz", [[random_pose(1)]])
    write_poses(tmp_path / "nobody.npz", [[random_pose(1)]], force=True)
    assert len(read_poses(tmp_path / "nobody.npz").frames) == 1
    assert "choose a name that ends so" in error_of(write_poses, tmp_path / "a.json", [[random_pose(1)]])
    with pytest.raises(ValueError, match="share one size"):
        write_poses(tmp_path / "a.npz", [[random_pose(1)], [random_pose(1, size=(9, 9))]])
    with pytest.raises(ValueError, match="share one size"):
        write_poses(tmp_path / "a.npz", [[]])


def good_arrays() -> dict[str, np.ndarray]:
    return {
        "joints": np.full((2, 1, 128, 2), 0.5, np.float32),
        "scores": np.ones((2, 1, 128), np.float32),
        "size": np.array([10, 20]),
        "fps": np.array(30.0),
        "format": np.array("scd-pose-1"),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joints": None}, "it lacks joints, scores, size, fps or format; make it with `scd pose`"),
        ({"format": None}, "it lacks joints"),
        ({"format": np.array("scd-pose-9")}, "its format is 'scd-pose-9', this version reads 'scd-pose-1'"),
        ({"joints": np.zeros((2, 1, 127, 2))}, "holds (2, 1, 127, 2) and (2, 1, 128)"),
        ({"joints": np.zeros((2, 128, 2))}, "holds (2, 128, 2) and"),
        ({"scores": np.zeros((2, 2, 128))}, "and (2, 2, 128)"),
        ({"joints": np.full((2, 1, 128, 2), np.nan)}, "NaN or infinite"),
        ({"scores": np.full((2, 1, 128), np.inf)}, "NaN or infinite"),
        ({"size": np.array([0, 20])}, "makes no sense"),
        ({"size": np.array([10, 20, 3])}, "makes no sense"),
        ({"fps": np.array(-1.0)}, "makes no sense"),
        ({"fps": np.array(np.nan)}, "makes no sense"),
        ({"size": np.array([10, 10**9])}, "has 1000000000x10 pixels, more than 65535"),
        ({"joints": np.full((2, 1, NUM_JOINTS, 2), 1e6)}, "a joint lies more than 100 pictures outside"),
        ({"joints": np.array(["a"])}, "not numbers"),
        ({"joints": np.array([{}], dtype=object)}, "cut off or damaged"),
    ],
)
def test_wrong_npz_files(tmp_path, change, message):
    arrays = {name: array for name, array in (good_arrays() | change).items() if array is not None}
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    text = error_of(read_poses, path)
    assert text.startswith(f"{path} is not a usable pose file: ")
    assert message in text


def test_a_good_npz_of_others_is_read(tmp_path):
    np.savez(
        tmp_path / "a.npz", **(good_arrays() | {"scores": np.full((2, 1, 128), 1.5), "extra": np.zeros(3)})
    )
    back = read_poses(tmp_path / "a.npz")
    assert back.frames[1][0].scores.max() == 1
    assert back.frames[1][0].joints.dtype == np.float32


def test_missing_cut_off_and_other_files(tmp_path):
    missing = tmp_path / "a.npz"
    assert error_of(read_poses, missing) == f"{missing} does not exist: check the name of the pose file"
    write_poses(missing, [[random_pose(1)]])
    data = missing.read_bytes()
    for end in (10, len(data) // 2, len(data) - 5):
        missing.write_bytes(data[:end])
        assert "cut off or damaged" in error_of(read_poses, missing)
    for content in (b"", b"hello", b'{"people": [', b"\xff\xfe\x00", b"\x93NUMPY"):
        missing.write_bytes(content)
        assert "neither an scd .npz nor complete JSON" in error_of(read_poses, missing)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert error_of(read_poses, empty) == (
        f"{empty} holds no .json pose files: name a pose file or the folder they are in"
    )


# ---- other people's JSON ----


def numbered(count: int, size: tuple[int, int]) -> list[float]:
    """`count` points x, y, score: point i lies at `place_of(i)` of the picture and has score 0.5."""
    height, width = size
    return [value for i in range(count) for value in ((i + 1) / 200 * width, (i + 1) / 400 * height, 0.5)]


def place_of(i: int) -> list[float]:
    return [(i + 1) / 200, (i + 1) / 400]


def save_json(path: Path, content) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("body", [18, 25])
@pytest.mark.parametrize("face", [68, 70])
@pytest.mark.parametrize("units", ["pixels", "fractions"])
@pytest.mark.parametrize("canvas", ["inside", "argument"])
@pytest.mark.parametrize("listed", [True, False])
def test_openpose_json(tmp_path, body, face, units, canvas, listed):
    size = (480, 360)
    scale = size if units == "pixels" else (1, 1)
    person = {
        "person_id": [-1],
        "pose_keypoints_2d": numbered(body, scale),
        "face_keypoints_2d": numbered(face, scale),
        "hand_left_keypoints_2d": numbered(21, scale),
        "hand_right_keypoints_2d": None,
    }
    content: dict = {"version": 1.3, "people": [person, {"pose_keypoints_2d": [0.0] * 54}]}
    if canvas == "inside":
        content |= {"canvas_height": size[0], "canvas_width": size[1]}
    path = save_json(tmp_path / "a.json", [content, content] if listed else content)
    back = read_poses(path, size=None if canvas == "inside" else size)
    assert len(back.frames) == 1 + listed
    assert back.size == size
    assert back.fps == 0
    pose, nobody = back.frames[-1]
    assert not nobody.scores.any()
    assert not nobody.joints.any()
    # Where OpenPose's own tables put each name among 25 and 18 points.
    names_25 = [*BODY_NAMES[:8], "middle_hip", *BODY_NAMES[8:], *["feet"] * 6]
    theirs = names_25.index if body == 25 else BODY_NAMES.index
    for joint, name in enumerate(BODY_NAMES):
        np.testing.assert_allclose(pose.joints[joint], place_of(theirs(name)), atol=1e-6)
    np.testing.assert_allclose(pose.joints[FACE], [place_of(i) for i in range(68)], atol=1e-6)
    np.testing.assert_allclose(pose.joints[LEFT_HAND], [place_of(i) for i in range(21)], atol=1e-6)
    assert (pose.scores[: LEFT_HAND.stop] == 0.5).all()
    assert not pose.scores[RIGHT_HAND].any()


def test_openpose_json_without_people_and_folders_of_it(tmp_path):
    nobody = {"people": [], "canvas_height": 20, "canvas_width": 30}
    assert read_poses(save_json(tmp_path / "b.json", nobody)) == PoseFile([[]], (20, 30))
    somebody = nobody | {"people": [{"pose_keypoints_2d": [3, 4, 0.5] + [0] * 51}]}
    save_json(tmp_path / "a.json", somebody)
    assert read_poses(tmp_path / "a.json", size=(200, 300)).size == (
        20,
        30,
    )  # the file knows better than the caller
    clip = read_poses(tmp_path)
    assert [len(frame) for frame in clip.frames] == [1, 0]
    np.testing.assert_allclose(clip.frames[0][0].joints[0], [0.1, 0.2])
    for number in (10, 9):  # in the order of their numbers, as pictures are read
        save_json(tmp_path / f"z{number}.json", somebody if number == 9 else nobody)
    assert [len(frame) for frame in read_poses(tmp_path).frames] == [1, 0, 1, 0]
    save_json(tmp_path / "c.json", nobody | {"canvas_height": 21})
    assert "c.json is not a usable pose file: its picture is (21, 30)" in error_of(read_poses, tmp_path)


@pytest.mark.parametrize("with_scores", [True, False])
def test_dwpose_dictionary(tmp_path, with_scores):
    """Two people; all left hands come before all right hands; -1 is absent."""
    candidate = np.random.default_rng(0).random((36, 2))
    subset = np.arange(36).reshape(2, 18).astype(float)
    subset[1, 3] = -1
    hands, faces = np.random.default_rng(1).random((4, 21, 2)), np.random.default_rng(2).random((2, 68, 2))
    hands[3] = -1
    content = {
        "bodies": {"candidate": candidate.tolist(), "subset": subset.tolist()},
        "hands": hands.tolist(),
        "faces": faces.tolist(),
    }
    if with_scores:
        content["bodies"]["score"] = np.full((2, 18), 0.7).tolist()
        content |= {
            "hands_score": np.full((4, 21), 0.6).tolist(),
            "faces_score": np.full((2, 68), 0.4).tolist(),
        }
    path = save_json(tmp_path / "a.json", content)
    first, second = read_poses(path, size=(64, 48)).frames[0]
    np.testing.assert_allclose(first.joints[BODY], candidate[:18], atol=1e-6)
    np.testing.assert_allclose(second.joints[FACE], faces[1], atol=1e-6)
    np.testing.assert_allclose(first.joints[LEFT_HAND], hands[0], atol=1e-6)
    np.testing.assert_allclose(second.joints[LEFT_HAND], hands[1], atol=1e-6)
    np.testing.assert_allclose(first.joints[RIGHT_HAND], hands[2], atol=1e-6)
    assert not second.scores[RIGHT_HAND].any()
    assert not second.joints[RIGHT_HAND].any()
    assert second.scores[3] == 0
    assert first.scores[3] == pytest.approx(0.7 if with_scores else 1)
    assert first.scores[FACE.start] == pytest.approx(0.4 if with_scores else 1)
    assert first.scores[LEFT_HAND.start] == pytest.approx(0.6 if with_scores else 1)
    bare = save_json(
        tmp_path / "b.json",
        {"bodies": {"candidate": candidate.tolist()}, "canvas_height": 8, "canvas_width": 9},
    )
    assert len(read_poses(bare).frames[0]) == 2
    none = save_json(
        tmp_path / "c.json", {"bodies": {"candidate": [], "subset": []}, "hands": [], "faces": []}
    )
    assert read_poses(none, size=(8, 9)).frames == [[]]


CANVAS = {"canvas_height": 20, "canvas_width": 30}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"people": [{"pose_keypoints_2d": numbered(18, (100, 100))}]}, "how large its picture was"),
        ({"people": [{"pose_keypoints_2d": numbered(18, (1, 1))}]}, "how large its picture was"),
        ([], "its list of frames is empty"),
        ([1], 'neither "people" (OpenPose) nor "bodies" (DWPose)'),
        ({"keypoints": []}, 'neither "people" (OpenPose) nor "bodies" (DWPose)'),
        ({"people": {}, **CANVAS}, None),
        ({"people": 3, **CANVAS}, '"people" is not a list of people'),
        ({"people": [3], **CANVAS}, '"people" is not a list of people'),
        (
            {"people": [{"pose_keypoints_2d": [1.0] * 51}], **CANVAS},
            "shape (51,) where 54 or 75 numbers are expected",
        ),
        ({"people": [{"face_keypoints_2d": [1.0] * 3}], **CANVAS}, "shape (3,) where 204 or 210"),
        ({"people": [{"hand_left_keypoints_2d": [1.0] * 64}], **CANVAS}, "shape (64,) where 63"),
        (
            {"people": [{"hand_left_keypoints_2d": "abc"}], **CANVAS},
            "hand_left_keypoints_2d is not a list of numbers",
        ),
        ({"people": [{"pose_keypoints_2d": [float("nan")] * 54}], **CANVAS}, "NaN or infinite"),
        ({"people": [], "canvas_height": 0, "canvas_width": 30}, "its canvas is 30 by 0 pixels"),
        ({"people": [], "canvas_height": 20}, "its canvas is None by 20 pixels"),
        (
            [{"people": [], **CANVAS}, {"people": [], "canvas_height": 9, "canvas_width": 9}],
            "different sizes",
        ),
        ({"bodies": [], **CANVAS}, '"bodies" is not a dictionary'),
        ({"bodies": {"candidate": [1, 2]}, **CANVAS}, "bodies.candidate has shape (2,)"),
        ({"bodies": {"candidate": [[0.1, 0.1]] * 17}, **CANVAS}, "are not 18 a person"),
        ({"bodies": {"candidate": [[0.1, 0.1]] * 18, "subset": [[0] * 20]}, **CANVAS}, "are not 18 a person"),
        (
            {"bodies": {"candidate": [[0.1, 0.1]] * 18}, "hands": [[[0.1, 0.1]] * 21], **CANVAS},
            "hands has shape (1, 21, 2) where (2, 21, 2) is expected",
        ),
        (
            {"bodies": {"candidate": [[0.1, 0.1]] * 18, "score": [1]}, **CANVAS},
            "bodies has scores of shape (1,) where (1, 18) is expected",
        ),
    ],
)
def test_wrong_json(tmp_path, content, message):
    path = save_json(tmp_path / "a.json", content)
    if message is None:
        assert read_poses(path).frames == [[]]
        return
    text = error_of(read_poses, path)
    assert text.startswith(f"{path} is not a usable pose file: ")
    assert message in text


# ---- detectors ----


def landmarks(count: int, box=(0.0, 0.0, 1.0, 1.0), visibility: float = 0.8) -> SimpleNamespace:
    """Point i lies on the diagonal of the box, at (i + 1) / (count + 1) of its way."""
    left, top, right, bottom = box
    ways = [(i + 1) / (count + 1) for i in range(count)]
    points = [(left + way * (right - left), top + way * (bottom - top)) for way in ways]
    return SimpleNamespace(landmark=[SimpleNamespace(x=x, y=y, visibility=visibility) for x, y in points])


def holistic_result(body=None, face=None, left=None, right=None) -> SimpleNamespace:
    return SimpleNamespace(
        pose_landmarks=body, face_landmarks=face, left_hand_landmarks=left, right_hand_landmarks=right
    )


class FakeNetwork:
    """Answers with the prepared results in turn, then with nobody; remembers what it was shown."""

    def __init__(self, *results) -> None:
        self.results, self.seen = list(results), []

    def process(self, image):
        self.seen.append(image.copy())
        return self.results.pop(0) if self.results else holistic_result()


def test_mediapipe_tables_agree_with_mediapipe():
    from mediapipe.python.solutions import face_mesh_connections as face
    from mediapipe.python.solutions.pose import PoseLandmark

    for name in BODY_NAMES:
        if name != "neck":
            assert PoseLandmark[name.upper()] == MEDIAPIPE_BODY[name]
    sets = {
        "jaw": face.FACEMESH_FACE_OVAL,
        "right_brow": face.FACEMESH_RIGHT_EYEBROW,
        "left_brow": face.FACEMESH_LEFT_EYEBROW,
        "right_eye": face.FACEMESH_RIGHT_EYE,
        "left_eye": face.FACEMESH_LEFT_EYE,
        "outer_mouth": face.FACEMESH_LIPS,
        "inner_mouth": face.FACEMESH_LIPS,
        "nose_bridge": face.FACEMESH_NOSE,
        "nose_base": face.FACEMESH_NOSE,
    }
    for part, connections in sets.items():
        known = {index for pair in connections for index in pair}
        assert {MEDIAPIPE_FACE[i] for i in FACE_PARTS[part]} <= known, part
    assert len(MEDIAPIPE_FACE) == len(set(MEDIAPIPE_FACE)) == 68


def test_mediapipe_points_land_in_our_order():
    network = FakeNetwork(
        holistic_result(landmarks(33), landmarks(468), landmarks(21), landmarks(21, (0, 0, 0.5, 1)))
    )
    image = np.zeros((300, 400, 3), np.uint8)
    (pose,) = MediaPipeDetector(network).detect(image)
    assert pose.size == (300, 400)
    for name, index in MEDIAPIPE_BODY.items():
        np.testing.assert_allclose(pose.joints[BODY_NAMES.index(name)], (index + 1) / 34, rtol=1e-5)
        assert pose.scores[BODY_NAMES.index(name)] == np.float32(0.8)
    np.testing.assert_allclose(pose.joints[1], (12 + 13) / 34 / 2, rtol=1e-5)
    np.testing.assert_allclose(pose.joints[FACE, 0], (np.array(MEDIAPIPE_FACE) + 1) / 469, rtol=1e-5)
    np.testing.assert_allclose(pose.joints[LEFT_HAND, 0], np.arange(1, 22) / 22, rtol=1e-5)
    np.testing.assert_allclose(pose.joints[RIGHT_HAND, 0], np.arange(1, 22) / 44, rtol=1e-5)
    assert (pose.scores[FACE.start :] == 1).all()
    assert network.seen[0].shape == (300, 400, 3)
    assert not image.any()  # the caller's picture is not painted over


def test_joints_outside_the_picture_are_absent():
    (pose,) = MediaPipeDetector(FakeNetwork(holistic_result(landmarks(33, (0, 0, 1, 1.5))))).detect(
        np.zeros((300, 400, 3), np.uint8)
    )
    ankles = [BODY_NAMES.index("right_ankle"), BODY_NAMES.index("left_ankle")]
    assert not pose.scores[ankles].any()
    assert not pose.joints[ankles].any()
    assert not pose.scores[FACE].any()


def test_several_people_are_painted_over_one_by_one_and_sorted():
    left, middle, right = ((x, 0.2, x + 0.2, 0.8) for x in (0.05, 0.4, 0.75))
    results = [holistic_result(landmarks(33, box)) for box in (middle, right, left)]
    network = FakeNetwork(*results)
    image = np.full((256, 512, 3), 200, np.uint8)
    people = MediaPipeDetector(network).detect(image)
    assert [round(float(pose.joints[0, 0]), 2) for pose in people] == [0.06, 0.41, 0.76]
    assert len(network.seen) == 4
    assert (network.seen[0] == 200).all()
    painted = network.seen[1][128, :, 0]
    assert (painted[220:300] == 127).all()
    assert (painted[:190] == 200).all()
    assert (painted[330:] == 200).all()
    assert (network.seen[3][128, 400:470, 0] == 127).all()
    assert len(MediaPipeDetector(FakeNetwork(*results), max_people=2).detect(image)) == 2


def test_ghosts_are_nobody():
    """The same place twice, and a handful of unsure joints."""
    image = np.zeros((256, 256, 3), np.uint8)
    twice = FakeNetwork(*[holistic_result(landmarks(33, (0.2, 0.2, 0.6, 0.8))) for _ in range(2)])
    assert len(MediaPipeDetector(twice).detect(image)) == 1
    assert MediaPipeDetector(FakeNetwork(holistic_result(landmarks(33, visibility=0.2)))).detect(image) == []


def test_dwpose_layout_through_a_fake_rtmlib(monkeypatch):
    calls = {}

    class Wholebody:
        def __init__(self, **options):
            calls["options"] = options

        def __call__(self, image):
            calls["pixel"] = image[0, 0].tolist()
            keypoints = np.stack([np.arange(133) + 1.0, 2 * (np.arange(133) + 1.0)], -1)
            people = np.stack([keypoints + np.array([100, 0]), keypoints, keypoints])
            return people, np.stack([np.full(133, 2.5), np.full(133, 0.75), np.full(133, 0.1)])

    monkeypatch.setitem(sys.modules, "rtmlib", SimpleNamespace(Wholebody=Wholebody))
    image = np.zeros((400, 800, 3), np.uint8)
    image[..., 0] = 9  # red
    first, second = get_detector("dwpose").detect(image)
    assert calls["pixel"] == [0, 0, 9]  # rtmlib takes BGR
    assert calls["options"]["to_openpose"] is False
    coco = "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow "
    coco += "left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
    assert {name: i for i, name in enumerate(coco.split())} == COCO_BODY

    def place(index):
        return np.stack([np.asarray(index) + 1.0, 2 * (np.asarray(index) + 1.0)], -1) / [800, 400]

    for name, index in COCO_BODY.items():
        np.testing.assert_allclose(first.joints[BODY_NAMES.index(name)], place(index), rtol=1e-5)
    np.testing.assert_allclose(first.joints[1], (place(5) + place(6)) / 2, rtol=1e-5)
    np.testing.assert_allclose(first.joints[FACE], place(np.arange(23, 91)), rtol=1e-5)
    np.testing.assert_allclose(first.joints[LEFT_HAND], place(np.arange(91, 112)), rtol=1e-5)
    np.testing.assert_allclose(first.joints[RIGHT_HAND], place(np.arange(112, 133)), rtol=1e-5)
    assert (first.scores == 0.75).all()
    assert (second.scores == 1).all()
    np.testing.assert_allclose(second.joints[0, 0], 101 / 800, rtol=1e-5)


def test_dwpose_weights_that_cannot_be_loaded(monkeypatch):
    def offline(**_):
        raise OSError("no route to host")

    monkeypatch.setitem(sys.modules, "rtmlib", SimpleNamespace(Wholebody=offline))
    assert error_of(DWPoseDetector) == (
        "the dwpose weights cannot be loaded (no route to host): check the connection, try again"
    )


def test_missing_detectors_say_what_to_install(monkeypatch):
    detect_module._loaded.cache_clear()
    monkeypatch.setitem(sys.modules, "rtmlib", None)
    assert "pip install 'scd[dwpose]'" in error_of(get_detector, "dwpose")
    monkeypatch.setitem(sys.modules, "mediapipe.python.solutions.holistic", None)
    message = error_of(get_detector)
    assert "pip install 'scd[pose-runtime]' && pip install --no-deps mediapipe==0.10.21" in message
    assert "or give a pose file" in message
    assert error_of(get_detector, "yolo") == "there is no pose detector 'yolo': use mediapipe or dwpose"


class FakeDetector:
    def __init__(self, *people: Pose) -> None:
        self.people = list(people)

    def detect(self, image):
        return self.people


def test_detect_one(caplog):
    image = np.zeros((128, 128, 3), np.uint8)
    small = pose_of({0: (0.1, 0.4), 1: (0.1, 0.6)})
    large = pose_of({0: (0.5, 0.1), 1: (0.5, 0.9)})
    detector = FakeDetector(small, large)
    assert detect_one(image, 1, detector=detector) is small
    assert detect_one(image, 2, detector=detector) is large
    assert not caplog.records
    assert detect_one(image, "largest", "a.png", detector) is large
    assert [record.getMessage() for record in caplog.records] == [
        "2 people in a.png: the largest, number 2 from the left, is used; --person chooses another"
    ]
    assert "a.png shows 2 person(s): --person 3" in error_of(detect_one, image, 3, "a.png", detector)
    for wrong in (0, -1, "first"):
        assert "--person is" in error_of(detect_one, image, wrong, "a.png", detector)
    assert error_of(detect_one, image, "largest", "a.png", FakeDetector()).startswith(
        "no person found in a.png: "
    )
    caplog.clear()
    assert detect_one(image, detector=FakeDetector(small)) is small
    assert not caplog.records
    assert detect_one(image, 2, detector=FakeDetector(small), alone=True) is small
    assert "--person 3" in error_of(detect_one, image, 3, "a.png", detector, alone=True)
    detect_one(image, detector=detector, advice="crop it")
    assert caplog.messages[-1].endswith("is used; crop it")
    with pytest.raises(ValueError, match=r"as scd.media.read_image reads it; not 'me.png'"):
        detect_one("me.png")


def test_small_pictures_are_enlarged_for_the_network():
    network = FakeNetwork()
    MediaPipeDetector(network).detect(np.zeros((100, 50, 3), np.uint8))
    assert network.seen[0].shape == (512, 256, 3)


def test_the_real_network_is_silent_and_finds_nobody_in_noise():
    """Ten lines of native log would come to the terminal otherwise."""
    code = (
        "import numpy as np\n"
        "from scd.pose.detect import get_detector\n"
        "detector = get_detector()\n"
        "noise = np.random.default_rng(0).integers(0, 256, (128, 96, 3), dtype=np.uint8)\n"
        "print(len(detector.detect(noise)), len(detector.detect(noise * 0)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "0 0\n"
    assert result.stderr == ""


def test_python_errors_still_reach_the_terminal(capfd):
    import os

    with detect_module.native_logs_silenced():
        os.write(2, b"hidden")
    os.write(2, b"shown")
    assert capfd.readouterr().err == "shown"


def test_the_real_network_finds_drawn_people_where_they_are():
    """Over 60 such pictures it found 59; the median joint was off by 0.9 % of the picture."""
    from scd.world import Scene

    detector = get_detector()
    views = [Scene.from_seed(seed).view(0, size=256) for seed in range(8)]
    errors, hand_errors, sides = [], [], []
    for view in views:
        for pose in detector.detect(view.image)[:1]:
            both = (view.pose.scores >= 0.9) & (pose.scores >= 0.3)
            distances = np.hypot(*(pose.joints - view.pose.joints).T)
            errors.append(np.median(distances[BODY][both[BODY]]))
            hands = np.r_[LEFT_HAND, RIGHT_HAND]
            hand_errors += distances[hands][both[hands]].tolist()
            swapped = np.hypot(*(pose.joints[MIRROR] - view.pose.joints).T)
            sides.append(np.median(distances[2:14]) < np.median(swapped[2:14]))
    assert len(errors) >= 7
    assert np.median(errors) < 0.015
    assert np.median(hand_errors) < 0.025
    assert np.mean(sides) > 0.8
    # Three of them side by side: all found, in order, each nearest to its own truth.
    three = detector.detect(np.ascontiguousarray(np.hstack([view.image[:, 48:208] for view in views[:3]])))
    assert len(three) == 3
    for place, pose in enumerate(three):
        truth = to_crop(
            views[place].pose, ((48 - 160 * place) / 256, 0, (528 - 160 * place) / 256, 1), (256, 480)
        )
        both = (truth.scores[BODY] >= 0.9) & (pose.scores[BODY] >= 0.3)
        assert np.median(np.hypot(*(pose.joints[BODY] - truth.joints[BODY])[both].T)) < 0.02


def test_coordinates_around_the_middle_are_refused(tmp_path):
    """OpenPose's --keypoint_scale 4 writes -1 to 1: fractions to look at, and half the person outside."""
    fractions = np.random.default_rng(0).uniform(0.1, 0.9, (18, 2))
    path = tmp_path / "p.json"
    for written, is_right in ((fractions, True), (2 * fractions - 1, False), (fractions - (0.4, 0), True)):
        row = np.column_stack([written, np.ones(18)]).ravel().tolist()
        path.write_text(json.dumps(
            {"people": [{"pose_keypoints_2d": row}], "canvas_width": 40, "canvas_height": 40}
        ))  # fmt: skip
        if is_right:
            np.testing.assert_allclose(read_poses(path).frames[0][0].joints[BODY], written, atol=1e-6)
        else:
            assert "its coordinates go from -1 to 1; write pixels" in error_of(read_poses, path)
    path.write_text('{"people": [], "canvas_width": 1e999, "canvas_height": 40}')
    assert "its canvas is inf by 40 pixels" in error_of(read_poses, path)
