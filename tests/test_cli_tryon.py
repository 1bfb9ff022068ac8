"""`scd tryon`: outside the region no byte changes, whatever the picture is; the region is painted by the
pipeline; what a user gets wrong is one line. And garments of `scd animate`."""

import io
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_picture, make_pipeline, make_pose
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps
from test_cli import complaint

from scd import checkpoint, media, model, world
from scd.cli.where import _is_seen
from scd.config import PRESETS, replace
from scd.data.buckets import Buckets
from scd.inputs import split_generator
from scd.media.original import Original, read_original
from scd.pose import detect
from scd.pose.files import write_poses
from scd.pose.region import garment_region
from scd.pose.skeleton import empty_pose
from scd.region import paste_back, tinted
from scd.tryon import paint_stage, place_region, put_back, read_garments, set_stage
from scd.types import FACE, UserError
from scd.world import flat_garment, sample_garment

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 32  # of the model's frame


class FakeDetector:
    """Finds the person in pictures of this one's shape, and remembers what it was shown."""

    def __init__(self, pose):
        self.pose, self.shapes = pose, []

    def detect(self, image):
        height, width = image.shape[:2]
        self.shapes.append((height, width))
        rows, columns = self.pose.size
        return [replace(self.pose, size=(height, width))] if height * columns == width * rows else []


@pytest.fixture(scope="module")
def person():
    return world.Scene.from_seed(3).view(0, size=(96, 72))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder of a small model whose poses matter."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    pipe = model.build(PRESETS["world-tiny"])
    torch.manual_seed(0)
    torch.nn.init.normal_(pipe.pose_encoder.conv_out.weight)
    checkpoint.export(pipe, folder)
    return folder


@pytest.fixture
def detector(monkeypatch, person):
    fake = FakeDetector(person.pose)
    monkeypatch.setattr("scd.pose.detect.get_detector", lambda name="mediapipe": fake)
    monkeypatch.setattr("scd.pose.silhouette.find_silhouette", lambda image: None)
    return fake


@pytest.fixture
def folder(tmp_path, monkeypatch, person):
    """me.png, two garments, and mask.png: a box that no edge of the picture touches."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(8)
    media.write_image("me.png", person.image)
    for name, kind in (("shirt", "upper"), ("trousers", "lower")):
        media.write_image(f"{name}.png", flat_garment(sample_garment(rng, kind), 64))
    media.write_image("mask.png", box_mask((96, 72)))
    return tmp_path


@pytest.fixture
def tryon(scd, tiny, folder, detector):
    return lambda *arguments: scd("tryon", *arguments, "--model", tiny, "--steps", 2, "--device", "cpu")


def box_mask(size):
    """uint8 (H, W): white from a quarter to three quarters."""
    height, width = size
    mask = np.zeros(size, np.uint8)
    mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 255
    return mask


def decoded(path):
    """The picture as Pillow decodes it, upright: (H, W, 3), or (H, W, 4) where it has transparency."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        return np.array(upright.convert("RGBA" if upright.has_transparency_data else "RGB"))


# ---- the part that is shown, and the way back ----


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(16, 260), st.integers(16, 260)), box=st.tuples(*[st.floats(0, 1)] * 4),
    with_pose=st.booleans(), square=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_outside_the_region_no_byte_changes(size, box, with_pose, square, seed):
    """After the crop and the way back, for any picture, any place and size of the region."""
    rng = np.random.default_rng(seed)
    (height, width), (top, bottom), (left, right) = size, sorted(box[:2]), sorted(box[2:])
    region = np.zeros(size, bool)
    top, left = int(top * (height - 1)), int(left * (width - 1))
    region[top : max(top + 1, int(bottom * height)), left : max(left + 1, int(right * width))] = True
    original = Original(
        rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 256, size, np.uint8), None
    )
    pose = world.Scene.from_seed(seed).view(0, size=64).pose if with_pose else None
    stage = set_stage(original, region, pose, Buckets(64, square))
    x0, y0, x1, y1 = stage.placement.source
    assert region[y0:y1, x0:x1].sum() == region.sum(), "the whole region is shown"
    frame = rng.integers(0, 256, stage.person.shape, np.uint8)
    result = put_back(original, region, stage.placement, frame)
    np.testing.assert_array_equal(result.pixels[~region], original.pixels[~region])
    np.testing.assert_array_equal(result.alpha, original.alpha)
    left, top, right, bottom = stage.placement.target
    rows, columns = np.nonzero(region)
    down = top + ((rows - y0 + 0.5) * (bottom - top) / (y1 - y0)).astype(int)
    across = left + ((columns - x0 + 0.5) * (right - left) / (x1 - x0)).astype(int)
    assert stage.region[down, across].all(), "what is pasted was painted"
    assert not np.delete(stage.region, np.s_[top:bottom], 0).any(), "nothing is painted in the padding"
    assert not np.delete(stage.region, np.s_[left:right], 1).any()


@pytest.mark.parametrize("size", [(90, 64), (64, 64), (301, 177), (160, 500), (1200, 1600)])
@pytest.mark.parametrize("with_pose", [False, True])
def test_what_comes_back_lies_where_it_was(size, with_pose):
    """A frame in which nothing was painted gives the picture again, up to its resolution."""
    rows, columns = np.mgrid[: size[0], : size[1]] / max(size)
    smooth = np.stack([rows, columns, 1 - (rows + columns) / 2], -1)
    original = Original(np.rint(255 * smooth).astype(np.uint8), None, None)
    region = box_mask(size) > 0
    pose = replace(world.Scene.from_seed(3).view(0, size=64).pose, size=size) if with_pose else None
    stage = set_stage(original, region, pose, Buckets(64, square=True))
    result = put_back(original, region, stage.placement, stage.person)
    # The smallest step between a frame's pixels is 1.6 levels
    assert np.abs(result.pixels.astype(int) - original.pixels).max() <= 2
    again = Original(np.zeros_like(original.pixels), None, None)
    painted = put_back(again, region, stage.placement, np.full((64, 64, 3), 200, np.uint8)).pixels
    assert (painted[region] > 0).mean() > 0.95
    assert (painted[region] == 200).mean() > 0.7, "deeper inside than the seam it is what was painted"
    first = painted[np.argmax(region.any(1)), size[1] // 2]
    assert (first > 0).all(), "the seam lies inside the region"
    assert (first <= 100).all(), "and is soft"


def test_a_small_person_is_shown_large_and_a_large_one_whole():
    pose = world.Scene.from_seed(3).view(0, size=64).pose
    region = garment_region(pose, (64, 64), "upper")
    around = replace(pose, joints=((pose.joints * 64 + 10) / 84).astype(np.float32), size=(84, 84))
    whole = place_region(np.pad(region, 10), around, Buckets(32, square=True))
    assert whole == media.place((84, 84), (32, 32)), "an eighth larger is not worth a crop"
    wide = np.zeros((640, 960), bool)
    wide[300:364, 400:464] = region
    height, width = wide.shape
    joints = (pose.joints * 64 + (400, 300)) / (width, height)
    small = replace(pose, joints=joints.astype(np.float32) * (pose.scores[:, None] > 0), size=wide.shape)
    for known in (small, None):
        placement = place_region(wide, known, Buckets(32, square=True))
        left, top, right, bottom = placement.source
        assert left <= 400 + np.flatnonzero(region.any(0))[0], "the region is in it"
        assert right - left == bottom - top < 160, "and not much more than the person"
        assert placement.target == (0, 0, 32, 32), "nothing is padded where the picture goes on"
    white = Original(np.full((*wide.shape, 3), 255, np.uint8), None, None)
    moved = set_stage(white, wide, small, Buckets(32, square=True)).pose
    left, top, right, bottom = place_region(wide, small, Buckets(32, square=True)).source
    expected = (small.joints * (width, height) - (left, top)) / (right - left)
    seen = small.scores > 0
    np.testing.assert_allclose(moved.joints[seen], expected[seen], atol=1e-4)
    with pytest.raises(ValueError, match="an empty region"):
        place_region(np.zeros((64, 64), bool), None, Buckets(32, square=True))


# ---- pictures of all kinds ----


def rotated(image, path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a phone held upright: to be turned by 90 degrees
    image.rotate(90, expand=True).save(path, exif=exif, quality=90)


def transparent(image, path):
    alpha = np.random.default_rng(0).integers(0, 256, (image.height, image.width), np.uint8)
    image.putalpha(Image.fromarray(alpha))
    image.save(path)


def swapped_primaries():
    """An ICC profile whose red is sRGB's green: what does not know it shows other colours."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for old, new in ((b"rXYZ", b"?XYZ"), (b"gXYZ", b"rXYZ"), (b"?XYZ", b"gXYZ"), (b"sRGB", b"mine")):
        profile = profile.replace(old, new)
    wide = "sRGB".encode("utf-16-be")
    return bytes(profile.replace(wide, "mine".encode("utf-16-be")))


PROFILE = swapped_primaries()  # once: it holds the time of its making


KINDS = {
    "photo.jpg": lambda image, path: image.save(path, quality=80),
    "rotated.jpg": rotated,
    "alpha.png": transparent,
    "palette.png": lambda image, path: image.quantize(16).save(path, transparency=3),
    "grey.png": lambda image, path: image.convert("L").save(path),
    "wide.webp": lambda image, path: image.save(path, lossless=True, icc_profile=PROFILE),
    "large.png": lambda image, path: image.resize((2250, 3000), 0).save(path, compress_level=1),
}


@pytest.mark.parametrize("name", KINDS)
def test_pictures_of_all_kinds_come_out_as_they_went_in(tryon, folder, name):
    KINDS[name](Image.fromarray(media.read_image("me.png")), folder / name)
    code, out, err = tryon(name, "shirt.png", "--region", "mask.png", "-o", "out.png")
    assert (code, out) == (0, "out.png\n"), err
    assert len(err.splitlines()) == 1, "only that the model knows drawn people"
    before, after = decoded(name), decoded("out.png")
    assert after.shape == before.shape
    height, width = before.shape[:2]
    region = box_mask((height, width)) > 0
    np.testing.assert_array_equal(after[~region], before[~region])
    assert (after[region] != before[region]).any(-1).mean() > 0.9
    if after.shape[2] == 4:
        np.testing.assert_array_equal(after[..., 3], before[..., 3])


def test_a_model_of_photographs_is_shown_a_tall_picture_in_a_tall_frame():
    pipe, pixels = make_pipeline(), make_picture(0, (120, 60))
    region = np.zeros((120, 60), bool)
    region[10:110, 10:50] = True
    stage = set_stage(Original(pixels, None, None), region, None, Buckets.of(pipe.config))
    assert (stage.person.shape, stage.placement.target) == ((80, 48, 3), (4, 0, 44, 80))
    wide, pose = np.zeros((120, 600), bool), make_pose(0, (120, 600))
    wide[10:110, 200:240] = True
    narrow = replace(pose, joints=pose.joints * np.float32([0.05, 0.8]) + np.float32([0.34, 0.1]))
    near = place_region(wide, narrow, Buckets.of(pipe.config))
    assert near.size == (80, 48), "around a small person in a wide picture it is tall"
    assert near.source[2] - near.source[0] < 120
    frame = paint_stage(pipe, read_garments(pipe, [make_picture(1)], (80, 48)), stage)
    result = put_back(Original(pixels, None, None), region, stage.placement, frame)
    np.testing.assert_array_equal(result.pixels[~region], pixels[~region])
    assert (result.pixels[region] != pixels[region]).any(-1).mean() > 0.9


def test_a_picture_larger_than_the_model_reads_keeps_its_size(tmp_path):
    """Over 4096 pixels: what is shown is reduced, what is written is not."""
    wide = np.random.default_rng(0).integers(0, 256, (20, 5000, 3), np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    original = read_original(tmp_path / "wide.png")
    assert original.size == (20, 5000)
    np.testing.assert_array_equal(original.shown(), media.read_image(tmp_path / "wide.png"))
    assert original.shown().shape == (16, 4096, 3)
    region = np.zeros((20, 5000), bool)
    region[5:15, 1000:4900] = True
    stage = set_stage(original, region, None, Buckets(64, square=True))
    result = put_back(original, region, stage.placement, 255 - stage.person)
    np.testing.assert_array_equal(result.pixels[~region], wide[~region])
    assert (result.pixels[region] != wide[region]).any(-1).mean() > 0.9


@pytest.mark.parametrize("name", KINDS)
def test_an_original_is_shown_as_read_image_shows_it(tmp_path, person, name):
    KINDS[name](Image.fromarray(person.image), tmp_path / name)
    np.testing.assert_array_equal(read_original(tmp_path / name).shown(), media.read_image(tmp_path / name))


def test_other_colours_are_painted_as_the_profile_has_them(tmp_path, person):
    """The picture is written in its own colours; who reads it with its profile sees what was painted."""
    path = tmp_path / "wide.png"
    Image.fromarray(person.image).save(path, icc_profile=PROFILE)
    original = read_original(path)
    assert original.profile == PROFILE
    assert (original.shown() != original.pixels).any(), "the profile matters"
    region = box_mask(original.size) > 0
    stage = set_stage(original, region, None, Buckets(64, square=True))
    frame = np.full((64, 64, 3), (90, 140, 60), np.uint8)
    result = put_back(original, region, stage.placement, frame)
    media.write_image(tmp_path / "out.png", result.whole, None, False, result.profile)
    seen = media.read_image(tmp_path / "out.png")[48, 36]
    assert np.abs(seen.astype(int) - (90, 140, 60)).max() <= 1
    Image.fromarray(person.image).save(path, icc_profile=b"no profile")
    assert read_original(path).profile is None


@pytest.mark.parametrize("mode", ["grey", "colour"])
def test_sixteen_bits_are_one_line(tryon, folder, mode):
    if mode == "grey":
        image = np.asarray(Image.fromarray(media.read_image("me.png")).convert("L"))
        Image.fromarray(image.astype(np.uint16) * 257).save("deep.png")
    else:
        import cv2

        cv2.imwrite("deep.png", media.read_image("me.png")[..., ::-1].astype(np.uint16) * 257)
    _, _, err = tryon("deep.png", "shirt.png", "--region", "mask.png", "-o", "out.png")
    assert err.splitlines()[0] == "scd: deep.png has 16 bits per channel: it is reduced to 8"
    region = box_mask((96, 72)) > 0
    expected = media.read_image("deep.png")
    np.testing.assert_array_equal(media.read_image("out.png")[~region], expected[~region])


def test_lossy_results_are_said(tryon, folder):
    code, _, err = tryon("me.png", "shirt.png", "--region", "mask.png", "-o", "out.jpg")
    assert code == 0
    assert "out.jpg: JPEG touches every pixel, outside the region too" in err
    assert media.read_settings("out.jpg")["kind"] == "tryon"
    (folder / "c.webp.json").touch()
    given = ("me.png", "shirt.png", "--region", "mask.png", "-o", "c.webp")
    assert "c.webp.json exists already" in complaint(tryon(*given))
    transparent(Image.fromarray(media.read_image("me.png")), folder / "alpha.png")
    line = complaint(tryon("alpha.png", "shirt.png", "--region", "mask.png", "-o", "b.jpg"))
    assert "b.jpg: JPEG cannot hold the transparency of alpha.png" in line


# ---- the verb ----


def test_it_is_the_pipeline_pasted_back(tryon, tiny, folder, person):
    """A picture of the frame's size, whose person fills it: nothing is resized but the garments."""
    media.write_image("small.png", media.fit(person.image, (SIDE, SIDE))[0])
    pose = world.Scene.from_seed(3).view(0, size=SIDE).pose
    write_poses("small.npz", [[pose]])
    media.write_image("small-mask.png", box_mask((SIDE, SIDE)))
    options = ("--region", "small-mask.png", "--pose", "small.npz", "--seed", 5, "--guidance", 3, "-n", 2)
    code, out, err = tryon("small.png", "shirt.png", "trousers.png", *options, "-o", "out.png")
    assert (code, out.split()) == (0, ["out-01.png", "out-02.png"]), err
    pipe = model.load(tiny, "cpu")
    pictures = (media.read_image(f"{name}.png") for name in ("shirt", "trousers"))
    shirt, trousers = (media.fit(picture, (SIDE, SIDE))[0] for picture in pictures)
    reference = pipe.encode_reference(shirt) + pipe.encode_reference(trousers)
    image, region = media.read_image("small.png"), box_mask((SIDE, SIDE)) > 0
    generators = split_generator(torch.Generator().manual_seed(5), 2)
    for name, generator in zip(out.split(), generators, strict=True):
        painted = pipe(
            reference, [pose], person=image, region=region, num_inference_steps=2, guidance_scale=3,
            generator=[generator], output_type="latent",
        ).images  # fmt: skip
        (frame,) = pipe.decode_frames(painted.transpose(0, 1))
        np.testing.assert_array_equal(media.read_image(name), paste_back(frame, image, region))
    record = json.loads((folder / "out.json").read_text())
    assert media.read_settings("out-02.png") == {**record, "picture": 2}
    assert record["inputs"]["garments"][1] == {
        "path": "trousers.png",
        "sha256": media.file_hash("trousers.png"),
    }


def test_a_pose_and_a_region_that_are_found(tryon, detector, folder, person):
    code, out, err = tryon("me.png", "shirt.png", "--category", "upper", "--sheet")
    assert code == 0, err
    assert out.splitlines() == ["out/me_shirt.png", "out/me_shirt-sheet.png"]
    assert detector.shapes == [(96, 72), (64, 64)], "the person once, and the garment looked through"
    region = garment_region(person.pose, (96, 72), "upper")
    changed = (media.read_image("out/me_shirt.png") != person.image).any(-1)
    assert not (changed & ~region).any()
    assert changed[region].mean() > 0.8
    assert media.read_image("out/me_shirt-sheet.png").shape[0] > 384


@pytest.mark.parametrize("words", [("upper", "lower"), ("dress",)])
def test_a_preview_is_the_union_and_stops_before_any_model(scd, folder, detector, person, words, monkeypatch):
    monkeypatch.setattr("scd.cli.tryon.load_pipeline", None)
    pictures = ("me.png", "shirt.png", "trousers.png")
    code, out, _ = scd("tryon", *pictures, "--category", *words, "--preview-region", "p.png")
    assert (code, out) == (0, "p.png\n")
    region = np.any([garment_region(person.pose, (96, 72), word) for word in words], 0)
    np.testing.assert_array_equal(media.read_image("p.png"), tinted(person.image, region))
    assert sorted(p.name for p in folder.iterdir() if "out" in p.name) == []


def test_garments_are_references_that_add(tiny, folder):
    pipe = model.load(tiny, "cpu")
    pictures = [media.read_image(f"{name}.png")[:, 5:59] for name in ("shirt", "trousers")]
    both = read_garments(pipe, pictures, (64, 64))
    first, second = (read_garments(pipe, [picture], (64, 64)) for picture in pictures)
    for name, (key, value) in both.cache.entries.items():
        joined = (first + second).cache.entries[name]
        assert torch.equal(key, joined[0])
        assert torch.equal(value, joined[1])
    assert not torch.equal(*(next(iter(one.cache.entries.values()))[0] for one in (first, second)))


def test_like_repeats_to_the_bit(tryon, scd, folder, detector, person):
    given = ("me.png", "shirt.png", "trousers.png", "--category", "upper", "lower", "-n", 2, "--seed", 3)
    assert tryon(*given, "--guidance", 2, "-o", "a.png")[0] == 0
    code, out, err = scd("tryon", "--like", "a-02.png", "-o", "b.png")
    assert (code, out.split()) == (0, ["b-01.png", "b-02.png"]), err
    assert "differ" not in err
    np.testing.assert_array_equal(media.read_image("a-02.png"), media.read_image("b-02.png"))
    assert (folder / "a.json").read_text() == (folder / "b.json").read_text()

    shutil.copy("me.png", "you.png")
    options = ("--region", "mask.png", "-n", 1, "--seed", 4)
    assert scd("tryon", "--like", "a.json", "you.png", "shirt.png", *options, "-o", "c.png")[0] == 0
    record = json.loads((folder / "c.json").read_text())
    assert record["inputs"]["picture"]["path"] == "you.png", "named pictures win"
    assert (record["categories"], record["seed"], record["num"], record["guidance"]) == ([], 4, 1, 2)
    detector.pose = world.Scene.from_seed(4).view(0, size=(96, 72)).pose
    assert (
        "pose or region differ from when this was recorded"
        in scd("tryon", "--like", "a.json", "-o", "d.png")[2]
    )


def test_like_knows_masks_and_refuses_what_has_changed(tryon, scd, folder):
    assert tryon("me.png", "shirt.png", "--region", "mask.png", "-o", "a.png")[0] == 0
    assert scd("tryon", "--like", "a.json", "-o", "b.png")[0] == 0
    np.testing.assert_array_equal(media.read_image("a.png"), media.read_image("b.png"))
    assert scd("tryon", "--like", "a.json", "--category", "upper", "-o", "c.png")[0] == 0
    assert json.loads((folder / "c.json").read_text())["categories"] == ["upper"]
    media.write_image("mask.png", np.full((96, 72), 255, np.uint8), force=True)
    assert "mask.png has changed since a.json" in complaint(scd("tryon", "--like", "a.json", "-o", "d.png"))
    (folder / "e.json").write_text('{"kind": "tryon"}')
    assert "e.json: is no complete record of `scd tryon`" in complaint(scd("tryon", "--like", "e.json"))
    (folder / "e.json").write_text('{"kind": "animate"}')
    assert "e.json: is no record of `scd tryon`" in complaint(scd("tryon", "--like", "e.json"))


# ---- what is found, and what is not ----


def test_nobody_is_found(tryon, detector, folder):
    detector.pose = replace(detector.pose, size=(1, 1))
    line = complaint(tryon("me.png", "shirt.png", "--category", "upper"))
    assert line.startswith("scd: no person found in me.png")
    assert "--region mask.png" in line
    code, _, err = tryon("me.png", "shirt.png", "--region", "mask.png", "-o", "a.png")
    assert code == 0
    assert "no person found in me.png: it is painted without a pose" in err
    detector.pose = empty_pose((96, 72))
    detector.detect = lambda image: [detector.pose]
    assert "me.png: the pose shows no shoulders" in complaint(
        tryon("me.png", "shirt.png", "--category", "upper", "-o", "b.png")
    )


def test_a_canvas_that_is_none_is_said_though_no_pose_is_given(scd, folder, person):
    for words in (("tryon", "me.png", "shirt.png"), ("mask", "me.png")):
        said = complaint(scd(*words, "--category", "upper", "--canvas", "wide"))
        assert "--canvas wide: write WIDTHxHEIGHT in pixels, as in 1280x720" in said


def test_a_detector_that_is_none_is_said_though_a_pose_is_given(scd, folder, person):
    write_poses("me.npz", [[person.pose]])
    given = ("--category", "upper", "--pose", "me.npz", "--detector", "bogus")
    for words in (("tryon", "me.png", "shirt.png"), ("mask", "me.png")):
        assert "there is no pose detector 'bogus': use mediapipe or dwpose" in complaint(scd(*words, *given))


def test_a_mask_says_who_is_meant(tryon, detector, folder, person):
    """Of two people the one under it, though the other is larger."""
    pose = person.pose
    small = replace(pose, joints=pose.joints * 0.4)
    detector.detect = lambda image: [replace(p, size=image.shape[:2]) for p in (small, pose)]
    mask = np.zeros((96, 72), np.uint8)
    mask[: int(96 * 0.4), : int(72 * 0.4)] = 255
    media.write_image("small.png", mask)
    code, _, err = tryon("me.png", "shirt.png", "--region", "small.png", "-o", "a.png")
    assert code == 0
    assert "2 people in me.png: the one under the mask, number 1 from the left, is used" in err
    code, _, err = tryon("me.png", "shirt.png", "--category", "upper", "-o", "b.png")
    assert "2 people in me.png: the largest, number 2 from the left, is used" in err


def test_no_detector_is_there(tryon, folder, monkeypatch, person):
    def missing(name="mediapipe"):
        raise UserError(f"the {name} detector is not installed")

    monkeypatch.setattr(detect, "get_detector", missing)
    assert "not installed" in complaint(tryon("me.png", "shirt.png", "--category", "upper"))
    code, _, err = tryon("me.png", "shirt.png", "--region", "mask.png", "-o", "a.png")
    assert code == 0
    assert "painted without a pose: the mediapipe detector is not installed" in err
    asked = ("--region", "mask.png", "--detector", "dwpose")
    assert "the dwpose detector is not installed" in complaint(tryon("me.png", "shirt.png", *asked))
    write_poses("me.npz", [[person.pose]])
    code, _, err = tryon("me.png", "shirt.png", "--category", "upper", "--pose", "me.npz", "-o", "b.png")
    assert code == 0
    assert "detector" not in err


def test_a_garment_with_a_person_in_it_is_said(tryon, folder):
    shutil.copy("me.png", "model.png")
    code, _, err = tryon("me.png", "model.png", "--category", "upper", "-o", "a.png")
    assert code == 0
    assert "model.png shows a person: a garment alone, laid flat, works best; crop" in err
    assert "shows a person" not in tryon("me.png", "shirt.png", "--category", "upper", "-o", "b.png")[2]


def test_a_body_that_is_guessed_in_a_shirt_is_no_person(person):
    """MediaPipe finds shoulders and hips in some flat shirts, and no face, hand or knee."""
    scores = person.pose.scores.copy()
    scores[18:], scores[[3, 4, 6, 7, 9, 10, 12, 13]] = 0, 0.24
    assert not _is_seen(replace(person.pose, scores=scores))
    scores[FACE] = 1
    assert _is_seen(replace(person.pose, scores=scores))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["me.png"], "give a PERSON and a GARMENT"),
        (["me.png", "shirt.png"], "say what shirt.png is: --category upper, lower or dress"),
        (
            ["me.png", "shirt.png", "--category", "hat"],
            "--category hat: there is no such category",
        ),
        (["--category", "upper", "me.png", "shirt.png"], "name the pictures first"),
        (["me.png", "shirt.png", "--category", "upper", "--region", "mask.png"], "give one of them"),
        (["me.png", "none.png", "--category", "upper"], "none.png does not exist"),
        (["none.png", "shirt.png", "--category", "upper"], "none.png does not exist"),
        (["me.png", "text.png", "--category", "upper"], "text.png is not a picture"),
        (["text.png", "shirt.png", "--category", "upper"], "text.png is not a picture"),
        (["me.png", "shirt.png", "--region", "none.png"], "none.png does not exist"),
        (["me.png", "shirt.png", "--region", "wide.png"], "wide.png has 96x48 pixels, the picture 72x96"),
        (["me.png", "shirt.png", "--region", "black.png"], "black.png is empty: paint white"),
        (["me.png", "shirt.png", "--category", "upper", "-o", "me.png", "--force"], "me.png is an input"),
        (["me.png", "shirt.png", "--region", "mask.png", "-o", "mask.png", "--force"], "is an input"),
        (["me.png", "shirt.png", "--category", "upper", "-o", "there.png"], "there.png exists already"),
        (["me.png", "shirt.png", "--category", "upper", "-o", "a.bmp"], "a picture's name ends in"),
        (["me.png", "shirt.png", "--category", "upper", "--preview-region", "p.txt"], "name ends in"),
        (["me.png", "shirt.png", "--category", "upper", "-n", "0"], "-n 0: paint one picture"),
        (["me.png", "shirt.png", "--category", "upper", "--person", "2"], "--person 2"),
        (["me.png", "shirt.png", "--category", "upper", "--pose", "two.npz"], "two.npz has 2 frames"),
        (["me.png", "shirt.png", "--category", "upper", "--pose", "wide.npz"], "wide.npz is of a picture of"),
    ],
)
def test_wrong_words_are_one_line(scd, folder, detector, monkeypatch, arguments, text):
    monkeypatch.setattr("scd.cli.tryon.load_pipeline", None)  # refused before any model
    (folder / "text.png").write_text("hello")
    shutil.copy("me.png", "there.png")
    media.write_image("wide.png", np.full((48, 96), 255, np.uint8))
    media.write_image("black.png", np.zeros((96, 72), np.uint8))
    write_poses("two.npz", [[detector.pose], [detector.pose]])
    write_poses("wide.npz", [[replace(detector.pose, size=(48, 96))]])
    assert text in complaint(scd("tryon", *arguments))


def test_an_inverted_mask_is_said(scd, folder, detector):
    media.write_image("inverted.png", 255 - box_mask((96, 72)))
    given = ("me.png", "shirt.png", "--region", "inverted.png", "--preview-region", "p.png")
    code, _, err = scd("tryon", *given)
    assert code == 0
    assert "is the mask inverted?" in err


# ---- scd animate --garment ----


def test_a_person_in_a_new_garment_and_another_pose(scd, tiny, folder, detector, person):
    def animate(*arguments):
        return scd("animate", *arguments, "--model", tiny, "--steps", 2, "--device", "cpu", "--guidance", 3)

    other = world.Scene.from_seed(5).view(0, size=SIDE).pose
    write_poses("pose.npz", [[other]])
    assert animate("me.png", "pose.npz", "-o", "own.png", "--seed", 6)[0] == 0
    given = ("me.png", "pose.npz", "--garment", "shirt.png", "trousers.png", "--seed", 6)
    code, out, err = animate(*given, "-o", "new.png", "--sheet")
    assert (code, out.split()) == (0, ["new.png", "new-sheet.png"]), err
    pipe = model.load(tiny, "cpu")
    frame, placement = media.fit(person.image, (SIDE, SIDE), fill=media.placement.border_colour(person.image))
    reference = pipe.encode_reference(frame, placement.apply_to_pose(person.pose))
    for name in ("shirt", "trousers"):
        reference += pipe.encode_reference(media.fit(media.read_image(f"{name}.png"), (SIDE, SIDE))[0])
    generator = torch.Generator().manual_seed(6)
    expected = pipe(reference, other, None, None, 2, 3, [generator], output_type="np").images[0]
    np.testing.assert_array_equal(media.read_image("new.png"), np.rint(255 * expected))
    assert (media.read_image("new.png") != media.read_image("own.png")).any()
    assert scd("animate", "--like", "new.json", "-o", "again.png")[0] == 0
    np.testing.assert_array_equal(media.read_image("new.png"), media.read_image("again.png"))
    assert "is an input" in complaint(animate(*given, "-o", "shirt.png", "--force"))


def test_a_clip_in_a_new_garment(scd, tiny, folder, detector, monkeypatch):
    monkeypatch.setenv("SCD_CACHE", str(folder / "cache"))
    poses = [[world.Scene.from_seed(5).view(i, size=SIDE).pose] for i in range(2)]
    write_poses("dance.npz", poses, 10.0)
    options = ("--model", tiny, "--steps", 2, "--device", "cpu", "--guidance", 3)
    assert scd("animate", "me.png", "dance.npz", "-o", "own.gif", *options)[0] == 0
    shutil.copy("me.png", "model.png")
    code, _, err = scd("animate", "me.png", "dance.npz", "-o", "new.gif", "--garment", "model.png", *options)
    assert code == 0, err
    assert "model.png shows a person" in err
    shown = [np.stack(list(media.open_clip(f"{name}.gif"))) for name in ("own", "new")]
    assert (shown[0] != shown[1]).any()
    assert media.read_settings("new.gif")["inputs"]["garments"][0]["path"] == "model.png"
    assert scd("animate", "--like", "new.gif", "-o", "again.gif")[0] == 0
    np.testing.assert_array_equal(shown[1], np.stack(list(media.open_clip("again.gif"))))
    assert "is an input" in complaint(
        scd("animate", "me.png", "dance.npz", "--garment", "a.gif", "-o", "a.gif", *options)
    )


def test_older_records_name_no_garments(scd, tiny, folder, detector):
    write_poses("pose.npz", [[world.Scene.from_seed(5).view(0, size=SIDE).pose]])
    options = ("--model", tiny, "--steps", 2, "--device", "cpu")
    assert scd("animate", "me.png", "pose.npz", "-o", "a.png", *options)[0] == 0
    record = json.loads((folder / "a.json").read_text())
    del record["inputs"]["garments"]
    (folder / "old.json").write_text(json.dumps(record))
    assert scd("animate", "--like", "old.json", "-o", "b.png")[0] == 0
    np.testing.assert_array_equal(media.read_image("a.png"), media.read_image("b.png"))


# ---- scd world --garment ----


def test_world_draws_a_garment(scd, folder):
    assert scd("world", "g.png", "--garment", "lower", "--seed", 4, "--size", 48) == (0, "g.png\n", "")
    expected = flat_garment(sample_garment(np.random.default_rng([4, 6]), "lower"), 48)
    np.testing.assert_array_equal(media.read_image("g.png"), expected)
    assert media.read_settings("g.png")["garment"] == "lower"
    assert "g.png exists already" in complaint(scd("world", "g.png", "--garment", "lower"))


def test_the_written_picture_has_the_profile(tmp_path):
    """PNG, JPEG and WebP alike; a mask of four channels is no JPEG."""
    image = np.zeros((20, 20, 4), np.uint8)
    for name in ("a.png", "a.webp"):
        media.write_image(tmp_path / name, image, profile=PROFILE)
        with Image.open(io.BytesIO((tmp_path / name).read_bytes())) as written:
            assert (written.mode, written.info["icc_profile"]) == ("RGBA", PROFILE)
    with pytest.raises(UserError, match="JPEG holds no transparency"):
        media.write_image(tmp_path / "a.jpg", image)


def test_categories_say_where_in_any_order_and_number(scd, folder, detector, monkeypatch):
    monkeypatch.setattr("scd.cli.tryon.load_pipeline", None)
    views = []
    for number, words in enumerate([("upper", "lower"), ("lower", "upper", "upper")]):
        given = ("me.png", "shirt.png", "--category", *words, "--preview-region", f"{number}.png")
        assert scd("tryon", *given)[0] == 0, "a suit in one picture"
        views.append(media.read_image(f"{number}.png"))
    np.testing.assert_array_equal(*views)


def test_large_pictures_and_their_masks_agree(scd, folder, detector, person, monkeypatch):
    """Read reduced, as over 4096 pixels: the mask is of the picture's own size all the same, the same as
    try-on's region, and no pixel outside a mask of its own changes."""
    monkeypatch.setattr("scd.media.picture.LARGEST_SIDE", 64)
    assert scd("mask", "me.png", "--category", "upper", "-o", "mask.png", "--force")[0] == 0
    mask = read_original("mask.png").pixels[..., 0] > 0
    assert mask.shape == (96, 72)
    (found,) = _regions_of_tryon(scd, monkeypatch, "--category", "upper")
    np.testing.assert_array_equal(found, mask)
    lines = np.ones((96, 72), bool)
    lines[::7] = False  # thinner than a pixel of the reduced picture
    media.write_image("lines.png", lines * np.uint8(255))
    (found,) = _regions_of_tryon(scd, monkeypatch, "--region", "lines.png")
    np.testing.assert_array_equal(found, lines)


def _regions_of_tryon(scd, monkeypatch, *where):
    """The regions that `scd tryon` would paint, with the painting left out."""
    seen = []

    def stop(original, region, *_):
        seen.append(region)
        raise UserError("enough")

    with monkeypatch.context() as patched:
        patched.setattr("scd.cli.tryon.set_stage", stop)
        patched.setattr("scd.cli.tryon.note_drawn_people", lambda *_: None)
        patched.setattr("scd.cli.tryon.identity", lambda *_: {})
        patched.setattr(
            "scd.cli.tryon.load_pipeline", lambda *_: SimpleNamespace(config={"default_size": 32})
        )
        patched.setattr("scd.cli.tryon.Buckets", SimpleNamespace(of=lambda _: None))
        assert "enough" in scd("tryon", "me.png", "shirt.png", *where)[2]
    return seen


def test_masks_of_several_garments_and_into_a_folder(scd, folder, detector, person):
    (folder / "masks").mkdir()
    given = ("me.png", "--category", "upper", "lower", "-o", "masks", "--preview", "masks")
    code, out, err = scd("mask", *given)
    assert code == 0, err
    assert out.splitlines() == ["masks/me_upper_lower.png", "masks/me_region.png"]
    both = np.any([garment_region(person.pose, (96, 72), word) for word in ("upper", "lower")], 0)
    np.testing.assert_array_equal(media.read_image("masks/me_upper_lower.png")[..., 0] > 0, both)
    assert "there is no such category" in complaint(scd("mask", "me.png", "--category", "hat"))


def test_a_garment_that_cannot_be_seen_is_said(tryon, folder):
    Image.new("RGBA", (40, 40), (255, 255, 255, 0)).save("cut.png")
    assert "cut.png is of one colour all over" in tryon("me.png", "cut.png", "--region", "mask.png")[2]
    said = tryon("me.png", "shirt.png", "--region", "mask.png", "-o", "b.png")[2]
    assert "one colour" not in said


def test_pixels_an_inch_stay(tryon, folder, person):
    Image.fromarray(person.image).save("print.png", dpi=(300, 300))
    for name in ("a.png", "b.jpg"):
        code, _, err = tryon("print.png", "shirt.png", "--region", "mask.png", "-o", name)
        assert code == 0, err
        with Image.open(name) as image:
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    Image.fromarray(person.image).save("none.png")
    assert tryon("none.png", "shirt.png", "--region", "mask.png", "-o", "plain.png")[0] == 0
    with Image.open("plain.png") as image:
        assert "dpi" not in image.info
