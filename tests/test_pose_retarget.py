"""Retargeting against exact truth: the driver is a drawn person of other proportions, the truth is the
reference person drawn in the same motion."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from mirrored import mirror

from scd.pose.alignment import alignment
from scd.pose.face import EYES_MOUTH
from scd.pose.retarget import LIMBS, limb_scales, retarget
from scd.pose.skeleton import FACE_PARTS, to_crop
from scd.types import BODY, BODY_NAMES, FACE, LEFT_HAND, NUM_JOINTS, RIGHT_HAND, Pose, PoseClip, UserError
from scd.world import Scene, motion
from scd.world import figure as figures

ANKLES = [BODY_NAMES.index("right_ankle"), BODY_NAMES.index("left_ankle")]
HIPS = [BODY_NAMES.index("right_hip"), BODY_NAMES.index("left_hip")]
HANDS = np.r_[LEFT_HAND, RIGHT_HAND]


def scene_of(seed: int, **body: float) -> Scene:
    """The scene of a seed, with the whole person in the picture, in other proportions (factors)."""
    scene = Scene.from_seed(seed)
    own = scene.person.body
    changed = dataclasses.replace(own, **{name: getattr(own, name) * by for name, by in body.items()})
    whole = {"fill": 0.72, "floor": 0.93}
    return dataclasses.replace(scene, person=dataclasses.replace(scene.person, body=changed), **whole)


def pose_in(scene: Scene, posture: np.ndarray, size: tuple[int, int]) -> Pose:
    """The exact joints of a posture, those outside the picture too."""
    camera = scene.camera(size)
    points = camera.project(figures.stand(scene.person.body, posture).joints)
    points[1] = (points[2] + points[5]) / 2
    joints = points / (camera.size[1], camera.size[0])
    return Pose(joints.astype(np.float32), np.ones(NUM_JOINTS, np.float32), size)


def clip_in(scene: Scene, postures: np.ndarray, size: tuple[int, int], fps: float = 15) -> PoseClip:
    return PoseClip.from_poses([pose_in(scene, posture, size) for posture in postures], fps)


def rest(yaw: float = 0.0, shift: float = 0.0) -> np.ndarray:
    posture = motion.rest()
    posture[figures.INDEX["yaw"]], posture[figures.INDEX["shift_x"]] = yaw, shift
    return posture


def errors(clip: PoseClip, truth: PoseClip, joints=BODY) -> np.ndarray:
    """Distances (T, J) as fractions of the picture's height."""
    height, width = truth.size
    return np.hypot(*np.moveaxis((clip.joints - truth.joints)[:, joints] * (width / height, 1), -1, 0))


def lowest(clip: PoseClip) -> np.ndarray:
    return clip.joints[:, ANKLES, 1].max(1)


def error_of(call, *arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The driver is smaller in its picture, long-legged, broad-shouldered, small-headed; both as sampled besides.
DRIVER = {"legs": 1.12, "shoulders": 1.15, "head": 0.88}


def case(
    seed: int, kind: str, size=(256, 192), driver_size=(256, 256), num_frames: int = 45
) -> tuple[PoseClip, Pose, PoseClip]:
    driver, reference = scene_of(2 * seed, **DRIVER), scene_of(2 * seed + 1)
    driver = dataclasses.replace(driver, fill=0.55, place=0.4)
    postures = np.stack([view.posture for view in driver.clip(kind, num_frames, 15)])
    own = pose_in(reference, rest(yaw=10 * (-1) ** seed, shift=0.1), size)
    moved = postures.copy()
    moved[:, figures.INDEX["shift_x"]] += 0.1
    return clip_in(driver, postures, driver_size), own, clip_in(reference, moved, size)


def test_exact_truth():
    """Measured over these 32 clips: body 0.0077 of the height instead of 0.157 (scaled as a whole and put
    into place: 0.0110), hands and face 0.0086; the lowest ankle 0.0054, at worst 0.0144."""
    before, scaled, after, fine, ground = [], [], [], [], []
    for seed in range(8):
        for kind in motion.CLIPS:
            driving, reference, truth = case(seed, kind)
            result = retarget(driving, reference)
            assert result.size == reference.size
            assert result.fps == driving.fps
            np.testing.assert_array_equal(result.scores, driving.scores)
            before.append(np.median(errors(driving, truth)))
            scaled.append(np.median(errors(_as_a_whole(driving, reference), truth)))
            after.append(np.median(errors(result, truth)))
            fine.append(np.median(errors(result, truth, np.r_[FACE, HANDS])))
            ground.append(np.abs(lowest(result) - lowest(truth)).max())
    assert np.mean(after) < 0.01
    assert max(after) < 0.02
    assert np.mean(after) < 0.1 * np.mean(before)
    assert np.mean(after) < 0.8 * np.mean(scaled)
    assert np.mean(fine) < 0.012
    assert max(ground) < 0.02


def _as_a_whole(driving: PoseClip, reference: Pose) -> PoseClip:
    """The driver scaled as a whole to the reference's height, hips and feet put where they belong."""
    size, own = np.array(driving.size[::-1], float), np.array(reference.size[::-1], float)
    points, target = driving.joints * size, reference.joints * own
    tall = np.median(points[:, ANKLES, 1].max(1) - points[:, 1, 1])
    points = points * ((target[ANKLES, 1].max() - target[1, 1]) / tall)
    across = target[HIPS, 0].mean() - points[0, HIPS, 0].mean()
    down = target[ANKLES, 1].max() - np.median(points[:, ANKLES, 1].max(1))
    points = points + np.array([across, down])
    return PoseClip((points / own).astype(np.float32), driving.scores, reference.size, driving.fps)


def test_bones_have_the_references_length():
    """Where the driver passes through the reference's own posture, every kind of limb is found to 5 %."""
    driver, reference = scene_of(4, **DRIVER), scene_of(5)
    postures = np.stack([view.posture for view in driver.clip("wave", 30, 15)])
    own = pose_in(reference, postures[0], (256, 256))
    scales = limb_scales(clip_in(driver, postures, (256, 256)), own)
    lengths = {}
    for name, limbs in LIMBS.items():
        pair = []
        for scene in (reference, driver):
            points = figures.stand(scene.person.body, rest()).joints
            points = np.concatenate([points, points[HIPS].mean(0, keepdims=True)])
            points[1] = points[[2, 5]].mean(0)
            pair.append(np.mean([np.linalg.norm(points[a] - points[b]) for a, b in limbs]))
        pixels = reference.camera((256, 256)).scale / driver.camera((256, 256)).scale
        lengths[name] = pair[0] / pair[1] * pixels
    assert scales.limbs == pytest.approx(lengths, rel=0.05)
    assert scales.torso == pytest.approx(
        np.mean([lengths[name] for name in ("trunk", "thigh", "shin")]), rel=0.03
    )
    assert scales.nearest[0] < 8  # the waving arm is away later


def test_the_first_frame_decides_nothing_alone():
    """A first frame with its arms at the camera changes nothing that is measured."""
    driving, reference, truth = case(1, "wave")
    odd = driving.joints.copy()
    for side in ("right", "left"):
        shoulder = odd[0, BODY_NAMES.index(f"{side}_shoulder")]
        for name in ("elbow", "wrist"):
            joint = BODY_NAMES.index(f"{side}_{name}")
            odd[0, joint] = shoulder + 0.1 * (odd[0, joint] - shoulder)
    result = retarget(dataclasses.replace(driving, joints=odd), reference)
    assert np.median(errors(result, truth)[1:]) < 0.015
    plain = retarget(driving, reference)
    np.testing.assert_allclose(result.joints[1:, BODY], plain.joints[1:, BODY], atol=0.004)


def test_a_clip_of_the_reference_itself_stays_as_it_is():
    scene = scene_of(6)
    postures = np.stack([view.posture for view in scene.clip("dance", 40, 15)])
    clip = clip_in(scene, postures, (256, 256))
    result = retarget(clip, clip[0])
    assert errors(result, clip).max() < 0.01
    # Seen smaller, in a wider picture, it comes back to the same place.
    wide = [to_crop(pose, (-1.0, -0.5, 2.0, 1.5), (256, 384)) for pose in clip]
    again = retarget(PoseClip.from_poses(wide, clip.fps), clip[0])
    np.testing.assert_allclose(again.joints, result.joints, atol=1e-3)


def test_nothing_is_stretched_between_aspect_ratios():
    driving, reference, _ = case(2, "dance")
    flat = to_crop(reference, (-0.5, 0.0, 1.5, 1.0), (256, 384))  # the same picture with wide margins
    tall, wide = retarget(driving, reference), retarget(driving, flat)
    pixels = [clip.joints * np.array(clip.size[::-1]) for clip in (tall, wide)]
    np.testing.assert_allclose(pixels[0] + (96, 0), pixels[1], atol=0.01)
    # The driver's own canvas does not matter either.
    other = PoseClip.from_poses(
        [to_crop(p, (-0.2, -0.1, 1.1, 1.4), (300, 260)) for p in driving], driving.fps
    )
    np.testing.assert_allclose(retarget(other, reference).joints, tall.joints, atol=1e-3)


def test_jumps_and_travel_are_scaled():
    driver, reference = scene_of(8, **DRIVER), scene_of(9)
    driver = dataclasses.replace(driver, fill=0.5, place=0.3)
    postures = np.stack([view.posture for view in driver.clip("wave", 60, 30)])
    time = np.linspace(0, 1, 60)
    postures[:, figures.INDEX["shift_x"]] = 0.5 * time
    postures[:, figures.INDEX["shift_y"]] = np.maximum(
        0, 0.3 - 8 * (time - 0.5) ** 2
    )  # 0.3 m high, 0.4 s long
    driving = clip_in(driver, postures, (256, 256), 30)
    truth = clip_in(reference, postures, (256, 256), 30)
    result = retarget(driving, pose_in(reference, rest(), (256, 256)))
    high = lowest(truth).max() - lowest(truth).min()
    assert high > 0.1
    # The truth jumps as many metres; the result jumps by the bodies' ratio, and the driver's legs are longer.
    assert lowest(result).max() - lowest(result).min() == pytest.approx(high, rel=0.15)
    on_ground = postures[:, figures.INDEX["shift_y"]] == 0
    assert np.abs(lowest(result) - lowest(truth))[on_ground].max() < 0.01
    moved = [clip.joints[-1, HIPS, 0].mean() - clip.joints[0, HIPS, 0].mean() for clip in (result, truth)]
    assert moved[0] == pytest.approx(moved[1], rel=0.15)


def test_a_long_clip_does_not_drift():
    """Each frame depends on itself: the same frame, an hour later, comes out the same to the bit."""
    driving, reference, _ = case(3, "dance")
    many = PoseClip(
        np.concatenate([driving.joints] * 50),
        np.concatenate([driving.scores] * 50),
        driving.size,
        driving.fps,
    )
    result = retarget(many, reference).joints.reshape(50, len(driving), NUM_JOINTS, 2)
    np.testing.assert_array_equal(result, np.broadcast_to(result[:1], result.shape))


def without(pose: Pose, *names: str) -> Pose:
    scores = pose.scores.copy()
    for name in names:
        scores[[i for i, known in enumerate(BODY_NAMES) if name in known]] = 0
    return dataclasses.replace(pose, scores=scores, joints=np.where(scores[:, None] > 0, pose.joints, 0))


def without_all(clip: PoseClip, *names: str) -> PoseClip:
    return PoseClip.from_poses([without(pose, *names) for pose in clip], clip.fps)


def test_missing_limbs_take_the_torsos_scale():
    driving, reference, truth = case(4, "dance")
    half = without(reference, "knee", "ankle", "wrist")
    scales = limb_scales(driving, half)
    for name in ("thigh", "shin", "forearm"):
        assert scales.limbs[name] == pytest.approx(scales.torso)
    result = retarget(driving, half)
    assert result.scores.all()
    # Without feet to stand on it hangs by the hips, a little less exactly.
    assert np.median(errors(result, truth)) < 0.035
    # A driver without legs moves what it has.
    cut = retarget(without_all(driving, "knee", "ankle"), reference)
    assert not cut.scores[:, ANKLES].any()
    assert not cut.joints[:, ANKLES].any()
    upper = [i for i, name in enumerate(BODY_NAMES) if "knee" not in name and "ankle" not in name]
    assert np.median(errors(cut, truth, upper)) < 0.035
    # Head and shoulders alone.
    bust = without(reference, "hip", "knee", "ankle", "elbow", "wrist")
    assert np.median(errors(retarget(driving, bust), truth, [0, 1, 2, 5, 14, 15, 16, 17])) < 0.06


def test_feet_away_for_some_frames_make_no_step():
    """While no ankle is found the figure hangs between its neighbours; the rest of it does not jump."""
    driving, reference, _ = case(5, "dance")
    scores, joints = driving.scores.copy(), driving.joints.copy()
    scores[20:26][:, ANKLES], joints[20:26][:, ANKLES] = 0, 0
    whole, part = (
        retarget(driving, reference),
        retarget(PoseClip(joints, scores, driving.size, 15), reference),
    )
    upper = [0, 1, 2, 5, *HIPS]
    assert np.abs(whole.joints - part.joints)[:, upper].max() < 0.02


@pytest.mark.parametrize("seed", range(12))
def test_any_joints_may_be_absent(seed):
    generator = np.random.default_rng(seed)
    driving, reference, _ = case(seed % 4, "dance", num_frames=12)
    scores = driving.scores * (generator.random(driving.scores.shape) > generator.uniform(0.1, 0.5))
    clip = PoseClip(np.where(scores[..., None] > 0, driving.joints, 0), scores, driving.size, 15)
    own = reference.scores * (generator.random(NUM_JOINTS) > 0.3)
    pose = Pose(np.where(own[:, None] > 0, reference.joints, 0).astype(np.float32), own, reference.size)
    result = retarget(clip, pose)
    assert np.isfinite(result.joints).all()
    np.testing.assert_array_equal(result.scores, scores)
    assert not result.joints[scores == 0].any()
    assert 0 <= alignment(clip, pose).score <= 1


def test_errors():
    driving, reference, _ = case(0, "wave", num_frames=5)
    assert "--face is none, eyes-mouth or full, not 'half'" in error_of(retarget, driving, reference, "half")
    hands = dataclasses.replace(
        reference, scores=np.where(np.arange(NUM_JOINTS) >= RIGHT_HAND.start, 1, 0).astype(np.float32)
    )
    feet = dataclasses.replace(driving, scores=driving.scores * (np.arange(NUM_JOINTS) < FACE.start))
    assert "no part of the body in common" in error_of(retarget, feet, hands)


# ---- the face ----


def faces(wide: float, tall: float, num_frames: int = 12) -> PoseClip:
    """A standing person whose head has factors of its own, opens and shuts its mouth and nods aside."""
    scene = scene_of(2)
    standing = pose_in(scene, rest(), (256, 256))
    joints = np.repeat(standing.joints[None], num_frames, 0).astype(float)
    nose = joints[0, FACE.start + 30].copy()
    for t in range(num_frames):
        face = (joints[t, FACE] - nose) * (wide, tall)
        opening = 0.01 * t / (num_frames - 1)
        mouth = [*FACE_PARTS["outer_mouth"]][7:11]
        face[mouth, 1] += opening
        angle = np.radians(1.5 * t)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        joints[t, FACE] = nose + face @ turn
    return PoseClip(joints.astype(np.float32), np.ones((num_frames, NUM_JOINTS), np.float32), (256, 256), 10)


def shape_of(face: np.ndarray) -> np.ndarray:
    """A face (68, 2) without its place, size and tilt."""
    across = face[45] - face[36]
    turn = np.array([[across[0], -across[1]], [across[1], across[0]]]) / (across @ across)
    return (face - face[30]) @ turn


def test_the_face_moves_as_the_drivers_in_the_references_shape():
    driving, reference = faces(1.12, 0.94), faces(1.0, 1.0)
    result = retarget(driving, reference[0])
    # In distances between the eyes' outer corners; which frame is neutral is worth 0.08 of them at the mouth.
    for t in range(len(driving)):
        np.testing.assert_allclose(
            shape_of(result.joints[t, FACE]), shape_of(reference.joints[t, FACE]), atol=0.09
        )
    own = shape_of(driving.joints[0, FACE]) - shape_of(reference.joints[0, FACE])
    left = shape_of(result.joints[0, FACE]) - shape_of(reference.joints[0, FACE])
    assert np.abs(left).mean() < 0.1 * np.abs(own).mean()
    opened = [np.ptp(shape_of(clip.joints[-1, FACE])[48:60, 1]) for clip in (result, reference)]
    shut = [np.ptp(shape_of(clip.joints[0, FACE])[48:60, 1]) for clip in (result, reference)]
    assert opened[0] - shut[0] == pytest.approx(opened[1] - shut[1], rel=0.25)
    # Another driver's face gives the same result: nothing of it shows.
    other = retarget(faces(0.95, 1.05), reference[0])
    size = np.ptp(reference.joints[0, FACE], axis=0).max()
    assert np.abs(other.joints[:, FACE] - result.joints[:, FACE]).max() < 0.08 * size


def test_which_points_of_the_face_are_carried():
    driving, reference = faces(1.1, 1.0), faces(1.0, 1.0)[0]
    points = {
        face: retarget(driving, reference, face).scores[0, FACE].nonzero()[0].tolist()
        for face in ("none", "eyes-mouth", "full")
    }
    assert points == {"none": [], "eyes-mouth": sorted(EYES_MOUTH), "full": list(range(68))}
    assert sorted(EYES_MOUTH) == list(range(36, 68))
    full, some = retarget(driving, reference), retarget(driving, reference, "eyes-mouth")
    np.testing.assert_array_equal(full.joints[:, BODY], some.joints[:, BODY])
    assert not some.joints[:, FACE][:, :36].any()


def test_a_reference_without_a_face_or_turned_away_keeps_the_drivers():
    driving, reference = faces(1.2, 0.9), faces(1.0, 1.0)[0]
    faceless = dataclasses.replace(
        reference, scores=np.where(np.arange(NUM_JOINTS) >= FACE.start, 0, 1).astype(np.float32)
    )
    profile = reference.joints.copy()
    nose = profile[FACE.start + 30]
    profile[FACE] = nose + (profile[FACE] - nose) * (0.4, 1)
    for own in (faceless, dataclasses.replace(reference, joints=profile)):
        result = retarget(driving, own)
        for t in (0, -1):
            np.testing.assert_allclose(
                shape_of(result.joints[t, FACE]), shape_of(driving.joints[t, FACE]), atol=1e-3
            )


# ---- alignment ----


def test_a_good_match_has_no_reasons():
    driving, reference, _ = case(0, "wave")
    match = alignment(driving, reference)
    assert match.score > 0.95
    assert match.enough
    assert match.reasons == ()


def test_reasons():
    driving, reference, _ = case(0, "wave")
    half = alignment(driving, without(reference, "knee", "ankle"))
    assert half.reasons[0] == (
        "the reference is cut at the hips, the driver shows legs and feet: these are made up"
    )
    assert half.score <= 0.6
    assert not half.enough
    knees = alignment(driving, without(reference, "ankle"))
    assert knees.reasons[0].startswith("the reference is cut at the knees, the driver shows legs and feet")
    assert half.score < knees.score < 1
    bust = alignment(without_all(driving, "knee", "ankle"), reference)
    assert bust.reasons[0] == (
        "the driver is cut at the hips, the reference shows legs and feet: these get no pose"
    )
    nothing = dataclasses.replace(reference, scores=np.zeros(NUM_JOINTS, np.float32))
    none = alignment(driving, nothing)
    assert none.score == 0
    assert "no part of the body in common" in none.reasons[0]


@pytest.mark.parametrize(("yaw", "side"), [(90, "the side"), (180, "behind")])
def test_references_seen_from_elsewhere(yaw, side):
    driving, _, _ = case(0, "wave")
    turned = pose_in(scene_of(1), rest(yaw), (256, 192))
    match = alignment(driving, turned)
    assert (
        f"the reference is seen from {side}, the driver from the front in 100% of its frames" in match.reasons
    )
    assert not match.enough
    mirrored = alignment(PoseClip.from_poses([mirror(pose) for pose in driving], 15), mirror(turned))
    assert mirrored.score == pytest.approx(match.score, abs=1e-4)


def test_a_figure_that_would_leave_the_picture():
    driver, reference = scene_of(10), scene_of(11)
    postures = np.stack([view.posture for view in driver.clip("walk", 30, 15)])
    postures[:, figures.INDEX["shift_x"]] = np.linspace(0, 2.5, 30)
    driving, narrow = clip_in(driver, postures, (256, 768)), pose_in(reference, rest(), (256, 128))
    inside = retarget(driving, narrow)
    assert inside.joints[:, HIPS, 0].max() < 0.9
    assert inside.joints[0, HIPS, 0].mean() == pytest.approx(narrow.joints[HIPS, 0].mean(), abs=0.02)
    steps = np.diff(inside.joints[:, HIPS, 0].mean(1))
    assert (steps > 0).all()  # it still walks, in shorter steps
    (reason,) = alignment(driving, narrow).reasons
    assert reason.startswith("the way to the sides is cut to 2")
    assert reason.endswith("to stay in the reference's picture: leave more room")
    whole = retarget(driving, narrow, keep_inside=False)
    assert whole.joints[-1, HIPS, 0].min() > 1.5
    np.testing.assert_array_equal(whole.joints[..., 1], inside.joints[..., 1])
    wide = pose_in(reference, rest(), (256, 1024))
    np.testing.assert_array_equal(
        retarget(driving, wide).joints, retarget(driving, wide, keep_inside=False).joints
    )


def test_a_figure_that_is_larger_than_the_picture():
    """The reference is seen near: arms held out to the sides leave its picture."""
    driving, reference, _ = case(0, "dance")
    near = to_crop(reference, (0.3, 0.0, 0.9, 0.6), (256, 192))
    match = alignment(driving, near)
    assert any(
        "of the moved joints lie outside the reference's picture" in reason for reason in match.reasons
    )


# ---- detected, not known ----


def test_from_pictures_to_the_references_proportions():
    """Detected, tracked, filled, smoothed, retargeted. Four such clips came to 0.013, 0.014, 0.014 and 0.031
    of the height, from 0.06 to 0.10; the last one's driver never stands as the reference does."""
    from scd.pose.detect import detect_one, get_detector
    from scd.pose.smooth import fill_gaps, one_euro
    from scd.pose.track import track_person

    detector = get_detector()
    driver, reference = scene_of(16, **DRIVER), scene_of(17)
    driver = dataclasses.replace(driver, fill=0.6, place=0.45)
    views = driver.clip("dance", 12, 15, 256)
    still = dataclasses.replace(reference.view(0, 256), posture=rest())
    seen = track_person((view.image for view in views), detector)
    driving = one_euro(fill_gaps(PoseClip.from_poses([one.pose for one in seen], 15)).clip)
    result = retarget(driving, detect_one(still.image, detector=detector))
    truth = clip_in(reference, np.stack([view.posture for view in views]), (256, 256))
    sure = result.scores[:, BODY] >= 0.3
    after, before = (np.median(errors(clip, truth)[sure]) for clip in (result, driving))
    assert after < 0.02
    assert after < 0.3 * before


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_who_stands_on_their_hands_is_somewhere(share):
    """Ankles above the neck in all frames or in most: every joint has a place, near the picture."""
    driving, reference, _ = case(1, "wave")
    turned = driving.joints.copy()
    turned[: round(share * len(turned)), :, 1] = 1 - turned[: round(share * len(turned)), :, 1]
    result = retarget(dataclasses.replace(driving, joints=turned), reference)
    assert np.isfinite(result.joints).all()
    assert np.abs(result.joints[:, BODY] - 0.5).max() < 1.5
