"""Whatever people have becomes uint8 RGB; every failure is one line and leaves no half-written file."""

import errno
import json
import logging
import os
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scd.data.buckets import Buckets, place_around
from scd.media import (
    Placement,
    contact_sheet,
    file_hash,
    fit,
    picture,
    place,
    read_image,
    read_settings,
    replacing,
    write_image,
)
from scd.pose.skeleton import empty_pose, inverse_box, to_crop
from scd.types import NUM_JOINTS, Pose, UserError

QUADRANTS = np.zeros((32, 48, 3), np.uint8)  # height 32, width 48: red, green over blue, white
QUADRANTS[:16, :24], QUADRANTS[:16, 24:] = (255, 0, 0), (0, 255, 0)
QUADRANTS[16:, :24], QUADRANTS[16:, 24:] = (0, 0, 255), (255, 255, 255)


def save(path: Path, image: Image.Image | np.ndarray, **options) -> Path:
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def error_of(call, *arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- reading ----


def test_plain_png_is_read_exactly(tmp_path):
    image = read_image(save(tmp_path / "a.png", QUADRANTS))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, QUADRANTS)
    image[0, 0] = 7  # writable: nobody should need to copy


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    undone = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", np.ascontiguousarray(undone(QUADRANTS)), exif=exif)
    np.testing.assert_array_equal(read_image(path), QUADRANTS)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = read_image(save(tmp_path / f"a.{suffix}", values))
    expected = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(image, np.repeat(expected[..., None], 3, -1))


def test_16_bit_rgb_is_scaled_not_clipped(tmp_path):
    values = np.arange(16 * 16 * 3, dtype=np.uint16).reshape(16, 16, 3) % 256
    rows = b"".join(b"\0" + (row * 257).astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (16).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(read_image(path), values)


def test_alpha_lies_on_white(tmp_path):
    rgba = np.zeros((16, 48, 4), np.uint8)
    rgba[:, :16] = (200, 0, 0, 255)
    rgba[:, 16:32] = (200, 0, 0, 51)  # one fifth
    expected = np.repeat(np.array([[200, 0, 0], [244, 204, 204], [255, 255, 255]]), 16, 0)[None].repeat(16, 0)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", rgba)), expected)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.webp", rgba, lossless=True)), expected)


def test_grey_one_bit_palette_and_transparent_palette(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(read_image(save(tmp_path / "grey.png", grey))[..., 1], grey)
    bits = Image.fromarray(((grey % 2) * 255).astype(np.uint8)).convert("1")
    np.testing.assert_array_equal(read_image(save(tmp_path / "bits.png", bits))[..., 2], grey % 2 * 255)
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.paste(0, (0, 0, 8, 16))
    image = read_image(save(tmp_path / "palette.png", palette))
    assert image[0, 0].tolist() == [10, 20, 30]
    assert image[0, 15].tolist() == [40, 50, 60]
    clear = read_image(save(tmp_path / "clear.png", palette, transparency=b"\x00\xff"))
    assert clear[0, 0].tolist() == [255, 255, 255]
    assert clear[0, 15].tolist() == [40, 50, 60]


def test_cmyk_jpeg(tmp_path):
    image = read_image(save(tmp_path / "a.jpg", Image.fromarray(QUADRANTS).convert("CMYK"), quality=100))
    assert np.abs(image.astype(int) - QUADRANTS).mean() < 4
    assert image[0, 0, 0] > 240 > 40 > image[0, 0, 1]


def test_colour_profiles_become_srgb(tmp_path):
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    # A picture tagged as what it is already keeps every byte; so does one with a profile that cannot be read.
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", noise, icc_profile=srgb)), noise)
    np.testing.assert_array_equal(read_image(save(tmp_path / "b.png", noise, icc_profile=b"broken")), noise)
    # Red and blue change places in a profile whose red and blue primaries do.
    at = {srgb[i : i + 4]: i for i in range(132, 132 + 12 * int.from_bytes(srgb[128:132], "big"), 12)}
    swapped = bytearray(srgb.replace(b"s\0R\0G\0B\0", b"x" * 8).replace(b"\0s\0R\0G\0B", b"\0x\0x\0x\0x"))
    red, blue = at[b"rXYZ"] + 4, at[b"bXYZ"] + 4
    swapped[red : red + 8], swapped[blue : blue + 8] = swapped[blue : blue + 8], swapped[red : red + 8]
    flat = np.full((16, 16, 3), (220, 40, 90), np.uint8)
    for mode in ("RGB", "RGBA"):
        path = save(tmp_path / f"{mode}.png", Image.fromarray(flat).convert(mode), icc_profile=bytes(swapped))
        assert np.abs(read_image(path)[0, 0].astype(int) - [90, 40, 220]).max() <= 2


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_first_frame_of_an_animation_with_a_note(tmp_path, suffix, caplog):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    with caplog.at_level(logging.WARNING, "scd"):
        image = read_image(path)
    assert image[5, 5].tolist() == [255, 0, 0]
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} has several frames: the first one is used"
    ]


def test_gigantic_pictures_are_reduced_with_one_note(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)  # Pillow raises above twice as many
    path = save(tmp_path / "a.png", Image.new("L", (9000, 450), 77))
    with caplog.at_level(logging.WARNING, "scd"):
        image = read_image(path)
    assert image.shape == (205, 4096, 3)
    assert (image == 77).all()
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} is 9000x450 pixels: it is read with the longer side at 4096"
    ]
    assert Image.MAX_IMAGE_PIXELS == 1_000_000


def test_pictures_at_the_limit_are_not_reduced(tmp_path, caplog):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = read_image(save(tmp_path / "a.jpg", Image.new("RGB", (4096, 16), "red")))
    assert image.shape == (16, 4096, 3)
    assert not caplog.records
    assert read_image(save(tmp_path / "b.jpg", Image.new("RGB", (5120, 640)), exif=exif)).shape == (
        4096,
        512,
        3,
    )
    assert len(caplog.records) == 1


def test_more_than_400_million_pixels_are_refused_unread(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((16, 16), np.uint8))
    data = bytearray(path.read_bytes())
    data[16:24] = (30000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    assert error_of(read_image, path) == (
        f"{path} is too large (30000x30000 pixels): make it smaller, 4096 pixels are enough"
    )


def test_pixel_limit_survives_threads(tmp_path):
    path, limit = save(tmp_path / "a.png", QUADRANTS), Image.MAX_IMAGE_PIXELS
    threads = [threading.Thread(target=lambda: [read_image(path) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limit == Image.MAX_IMAGE_PIXELS


def test_reading_errors_name_the_file_and_the_way_out(tmp_path):
    missing = tmp_path / "missing.png"
    assert error_of(read_image, missing) == f"{missing} does not exist: check the name"
    assert error_of(read_image, tmp_path) == f"{tmp_path} is a folder: name a file in it"
    text = tmp_path / "text.png"
    text.write_text("This is no picture.")
    assert error_of(read_image, text) == f"{text} is not a picture that can be read: use PNG, JPEG or WebP"
    empty = tmp_path / "empty.png"
    empty.touch()
    assert error_of(read_image, empty) == f"{empty} is not a picture that can be read: the file is empty"
    tiny = save(tmp_path / "tiny.png", np.zeros((40, 15, 3), np.uint8))
    assert error_of(read_image, tiny) == (
        f"{tiny} is too small (15x40 pixels): the shorter side needs at least 16 pixels"
    )
    assert "too small (1x1" in error_of(read_image, save(tmp_path / "one.png", np.zeros((1, 1, 3), np.uint8)))
    real = save(tmp_path / "float.tif", np.zeros((16, 16), np.float32))
    assert (
        error_of(read_image, real)
        == f"{real} holds floating point numbers: save it with 8 or 16 bits per channel"
    )
    wide = save(tmp_path / "wide.tif", np.full((16, 16), 70000, np.int32))
    assert error_of(read_image, wide) == f"{wide} holds 32-bit numbers: save it with 8 or 16 bits per channel"
    assert "a.txt/b.png cannot be read: Not a directory" in error_of(
        read_image, _text(tmp_path / "a.txt") / "b.png"
    )


def _text(path: Path) -> Path:
    path.write_text("text")
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tif", "bmp"])
def test_cut_off_files(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"a.{suffix}", noise)
    data = path.read_bytes()
    for fraction in (0.2, 0.6, 0.9):
        path.write_bytes(data[: int(len(data) * fraction)])
        message = error_of(read_image, path)
        assert message.startswith(f"{path} is damaged or cut off (") or "not a picture" in message


def test_out_of_memory_is_one_line(tmp_path, monkeypatch):
    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr(picture, "to_rgb", no_memory)
    path = save(tmp_path / "a.png", QUADRANTS)
    assert error_of(read_image, path) == f"{path} does not fit into memory: make it smaller first"


def test_errors_of_any_reader_are_one_line(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", QUADRANTS)
    for kind in (RuntimeError, SyntaxError, IndexError, zlib.error):  # AVIF, PNG and GIF readers raise these

        def broken(*_, kind=kind):
            raise kind("no such frame")

        monkeypatch.setattr(picture, "to_rgb", broken)
        assert (
            error_of(read_image, path)
            == f"{path} is damaged or cut off (no such frame): save or copy it again"
        )


def test_a_second_picture_in_a_phones_jpeg_is_no_animation(tmp_path, caplog):
    first, second = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    path = save(tmp_path / "a.jpg", first, format="MPO", save_all=True, append_images=[second])
    assert read_image(path)[5, 5, 0] > 240
    assert not caplog.records


# ---- writing ----


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG", "a.webp"])
def test_pictures_and_settings_come_back(tmp_path, name):
    settings = {"seed": 3, "prompt": "größer ☃", "sizes": [1, 2], "nothing": None}
    path = tmp_path / "new" / "folder" / name
    write_image(path, QUADRANTS, settings)
    assert np.abs(read_image(path).astype(int) - QUADRANTS).mean() < (0.001 if name == "a.png" else 5)
    assert read_settings(path) == settings
    beside = path.with_name(name + ".json")
    assert beside.exists() == (name != "a.png")
    assert sorted(p.name for p in path.parent.iterdir()) == (
        [name] if name == "a.png" else [name, beside.name]
    )


def test_png_settings_are_plain_text_for_other_programs(tmp_path):
    write_image(tmp_path / "a.png", QUADRANTS, {"seed": 3})
    with Image.open(tmp_path / "a.png") as image:
        assert json.loads(image.text["scd"]) == {"seed": 3}


def test_masks_are_written_grey(tmp_path):
    mask = (np.arange(32 * 32) % 2 * 255).astype(np.uint8).reshape(32, 32)
    write_image(tmp_path / "mask.png", mask)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "L"
    np.testing.assert_array_equal(read_image(tmp_path / "mask.png")[..., 0], mask)


def test_existing_files_are_kept_unless_forced(tmp_path):
    path = tmp_path / "a.png"
    write_image(path, QUADRANTS)
    before = path.read_bytes()
    expected = f"{path} exists already: choose another name, or --force to replace it"
    assert error_of(write_image, path, QUADRANTS[::-1]) == expected
    assert path.read_bytes() == before
    write_image(path, np.ascontiguousarray(QUADRANTS[::-1]), force=True)
    np.testing.assert_array_equal(read_image(path), QUADRANTS[::-1])


def test_an_existing_settings_file_is_kept_too(tmp_path):
    (tmp_path / "a.jpg.json").write_text("mine")
    assert "a.jpg.json exists already" in error_of(write_image, tmp_path / "a.jpg", QUADRANTS, {"seed": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg.json"]
    assert (tmp_path / "a.jpg.json").read_text() == "mine"


def _full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["while writing", "while renaming", "in the middle"])
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, where, name):
    path = tmp_path / name
    write_image(path, QUADRANTS)
    before = path.read_bytes()
    if where == "while renaming":
        monkeypatch.setattr(os, "replace", _full_disk)
    elif where == "while writing":
        monkeypatch.setattr(Image.Image, "save", _full_disk)
    else:

        def half(self, name, *_, **__):
            Path(name).write_bytes(b"half a picture")
            _full_disk()

        monkeypatch.setattr(Image.Image, "save", half)
    assert error_of(write_image, path, QUADRANTS, {"seed": 1}, force=True).endswith(
        "cannot be written: the disk is full"
    )
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert path.read_bytes() == before


def test_other_writing_errors(tmp_path, monkeypatch):
    odd = tmp_path / "a.xyz"
    assert error_of(write_image, odd, QUADRANTS) == (
        f"{odd} has no ending that can be written: use .png, .jpg, .jpeg, .webp"
    )
    folder = tmp_path / "folder.png"
    folder.mkdir()
    assert error_of(write_image, folder, QUADRANTS, force=True) == f"{folder} is a folder: name a file in it"
    inside = _text(tmp_path / "file") / "a.png"
    assert error_of(write_image, inside, QUADRANTS) == (
        f"{inside} cannot be written: a file stands where its folder should be"
    )
    long = np.zeros((16, 16400, 3), np.uint8)
    assert "long.webp cannot be written:" in error_of(write_image, tmp_path / "long.webp", long)
    with pytest.raises(ValueError, match="uint8"):
        write_image(tmp_path / "a.png", QUADRANTS.astype(np.float32))

    def no_permission(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", no_permission)
    assert error_of(write_image, tmp_path / "a.png", QUADRANTS).endswith(
        "cannot be written: Permission denied"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_other_exceptions_pass_through_and_clean_up(tmp_path):
    def interrupted():
        with replacing(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_a_link_goes_on_standing_for_its_file(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link.bin").symlink_to(tmp_path / "there" / "a.bin")
    for content in (b"new", b"newer"):
        with replacing(tmp_path / "link.bin", force=True) as temporary:
            temporary.write_bytes(content)
        assert (tmp_path / "link.bin").is_symlink()
        assert [file.read_bytes() for file in (tmp_path / "there").iterdir()] == [content]
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")

    def write():
        with replacing(tmp_path / "a"):
            pass

    assert error_of(write) == f"{tmp_path / 'a'} is a link that leads nowhere: choose another name"


def test_pictures_without_settings(tmp_path):
    path = save(tmp_path / "a.png", QUADRANTS)
    assert error_of(read_settings, path) == f"{path} carries no settings: only pictures written by scd do"
    assert "carries no settings" in error_of(read_settings, _text(tmp_path / "text.png"))
    jpeg = save(tmp_path / "b.jpg", QUADRANTS)
    for wrong in ("{", "[1]"):
        jpeg.with_name("b.jpg.json").write_text(wrong)
        assert "carries no settings" in error_of(read_settings, jpeg)
    assert "does not exist" in error_of(read_settings, tmp_path / "missing.png")


def test_file_hash(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_hash(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert "does not exist" in error_of(file_hash, tmp_path / "abcd")


# ---- the frame ----

SIZES = [(32, 48), (48, 32), (100, 100), (17, 333), (333, 17), (1080, 604), (64, 64)]


@pytest.mark.parametrize("source", SIZES)
@pytest.mark.parametrize("size", [(64, 64), (128, 96), (512, 384)])
def test_placement_never_stretches_and_undoes_itself(source, size):
    placement = place(source, size)
    (left, top, right, bottom), (x0, y0, x1, y1) = placement.source, placement.target
    assert 0 <= left < right <= source[1]
    assert 0 <= top < bottom <= source[0]
    assert 0 <= x0 < x1 <= size[1]
    assert 0 <= y0 < y1 <= size[0]
    assert placement.source == (0, 0, source[1], source[0])
    assert (x0, x1) == (0, size[1]) or (y0, y1) == (0, size[0])
    # Equal scales but for rounding one of the four sides to whole pixels.
    scale_x, scale_y = (x1 - x0) / (right - left), (y1 - y0) / (bottom - top)
    shortest = min(x1 - x0, y1 - y0, right - left, bottom - top)
    assert abs(scale_x / scale_y - 1) <= 0.51 / (shortest - 0.5)
    # Centred to the pixel.
    assert abs((x0 + x1) - size[1]) <= 1
    assert abs((y0 + y1) - size[0]) <= 1
    pose = Pose(
        np.random.default_rng(0).random((NUM_JOINTS, 2)).astype(np.float32),
        np.ones(NUM_JOINTS, np.float32),
        source,
    )
    there = placement.apply_to_pose(pose)
    assert there.size == size
    back = to_crop(there, inverse_box(placement.box), source)
    assert back.size == source
    np.testing.assert_allclose(back.joints, pose.joints, atol=1e-5)
    assert (placement.apply_to_pose(empty_pose(source)).joints == 0).all()


@pytest.mark.parametrize("cropped", [False, True])
@pytest.mark.parametrize("source", [(90, 60), (60, 90), (200, 120)])
def test_joints_follow_the_pixels(source, cropped):
    """A bright square and the joint at its middle land on the same place."""
    image = np.zeros((*source, 3), np.uint8)
    y, x = source[0] // 2 + 5, source[1] // 2 - 8
    image[y - 4 : y + 4, x - 4 : x + 4] = 255
    placement = place(source, (64, 64))
    if cropped:  # around the middle
        placement = place_around((0.3, 0.3, 0.7, 0.7), source, Buckets(64, square=True))
        assert (placement.source[2], placement.source[3]) != (source[1], source[0])
    frame = placement.apply(image, 0)
    joints = np.zeros((NUM_JOINTS, 2), np.float32)
    joints[0] = (x / source[1], y / source[0])
    there = placement.apply_to_pose(Pose(joints, np.eye(1, NUM_JOINTS, dtype=np.float32)[0], source)).joints[
        0
    ]
    weights = frame[..., 0].astype(float)
    rows, columns = np.mgrid[0.5:64, 0.5:64]
    middle = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum() / 64
    np.testing.assert_allclose(there, middle, atol=0.15 / 64)


def test_a_part_and_the_whole_exactly():
    padded, placement = fit(QUADRANTS, (64, 48), fill=(1, 2, 3))
    np.testing.assert_array_equal(padded[16:48], QUADRANTS)
    assert (padded[:16] == [1, 2, 3]).all()
    assert (padded[48:] == [1, 2, 3]).all()
    np.testing.assert_array_equal(placement.undo(padded), QUADRANTS)
    placement = Placement((32, 48), (32, 16), (16, 0, 32, 32), (0, 0, 16, 32))
    cropped = placement.apply(QUADRANTS)
    np.testing.assert_array_equal(cropped, QUADRANTS[:, 16:32])
    np.testing.assert_array_equal(placement.undo(cropped, onto=QUADRANTS), QUADRANTS)
    alone = placement.undo(cropped)
    assert (alone[:, :16] == 0).all()
    assert (alone[:, 32:] == 0).all()
    np.testing.assert_array_equal(alone[:, 16:32], cropped)


def test_a_mask_goes_the_same_way():
    mask = QUADRANTS[..., 0]
    framed, placement = fit(mask, (64, 48), fill=0)
    assert framed.shape == (64, 48)
    np.testing.assert_array_equal(placement.undo(framed), mask)


def test_undo_after_scaling_is_near_the_picture():
    rows, columns = np.mgrid[0:120, 0:80]
    smooth = np.stack([rows, columns, rows + columns], -1).astype(np.uint8)
    for size in ((64, 64), (256, 256)):
        framed, placement = fit(smooth, size)
        assert np.abs(placement.undo(framed).astype(int) - smooth).max() <= 3


def test_a_placement_refuses_other_pictures():
    placement = place((32, 48), (64, 64))
    with pytest.raises(ValueError, match="expects a picture"):
        placement.apply(np.zeros((48, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="expects a picture"):
        placement.undo(np.zeros((32, 32, 3), np.uint8))


# ---- contact sheets ----


def test_contact_sheet():
    red, blue = np.full((20, 30, 3), (255, 0, 0), np.uint8), np.full((40, 60), 90, np.uint8)
    sheet = contact_sheet([[red, None], [blue, red]], ["first", "second"], ["row"], gap=4)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (14 + 2 * (20 + 14 + 4) + 4, 2 * 34 + 4, 3)
    top = 14 + 4 + 14
    assert (sheet[top : top + 20, 4:34] == [255, 0, 0]).all()
    assert (sheet[top : top + 20, 38:68] == 255).all()
    assert (sheet[top + 38 : top + 58, 4:34] == 90).all()
    assert (sheet[:14] < 128).any(-1).any()  # the column labels are there
    assert (sheet[18:32] < 128).any(-1).any()  # and the row label
    assert (contact_sheet([[red]])[4:24, 4:34] == [255, 0, 0]).all()
    with pytest.raises(ValueError, match="needs a picture"):
        contact_sheet([[None]])


def test_a_pictures_settings_go_with_it(tmp_path):
    """Another file under the name has settings of its own, or none; what somebody else laid there stays."""
    path = tmp_path / "a.jpg"
    image = np.zeros((16, 16, 3), np.uint8)
    write_image(path, image, {"kind": "tryon", "version": "1"})
    write_image(path, image, force=True)
    with pytest.raises(UserError, match="carries no settings"):
        read_settings(path)
    for theirs in ('{"notes": 3}', '{"version": 1.3, "people": []}', '{"name": "site", "version": "1.0.0"}'):
        (tmp_path / "a.jpg.json").write_text(theirs)
        write_image(path, image, force=True)
        assert (tmp_path / "a.jpg.json").read_text() == theirs
