"""What keeps training fed: samples that do not depend on who makes them, broken files that stop nothing,
latents of clips and pairs, and how fast all of it is."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_clip, make_pipeline
from sd15_folder import make
from test_data import PORTRAIT, WIDE, clip, know_poses, lay
from test_data import no_detector as no_detector
from torch.utils.data import DataLoader

from scd import latents, media
from scd.cli.data import ready
from scd.config import DataConfig
from scd.data import prepare, unreadable
from scd.data.blocks import Blocks
from scd.data.collate import collate
from scd.data.layouts import find_clips
from scd.data.real import open_real
from scd.data.tryon import find_pairs
from scd.data.tryon_pictures import open_tryon
from scd.data.write_viton_hd import write_viton_hd
from scd.types import UserError

pytestmark = pytest.mark.usefixtures("one_thread", "no_detector")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Eight clips of two shapes, prepared."""
    root = tmp_path_factory.mktemp("clips") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "get_detector", lambda name: None)
        for number in range(8):
            shape = WIDE if number % 2 else PORTRAIT
            lay(root, f"{number}", number % 3 + 1, num=24, size=shape)
            know_poses(find_clips(root), f"{number}", clip(number % 3 + 1, 24, shape)[1])
        layout = find_clips(root)
        prepare.find_all_poses(layout, prepare.survey(layout))
    return root


@pytest.fixture(scope="module")
def viton(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs") / "viton"
    write_viton_hd(root, 8, 2, (48, 36))
    return root


@pytest.fixture
def open_copy(clips, viton, tmp_path):
    """A copy to break, and the dataset of it."""

    def copy(kind, **options):
        root = Path(shutil.copytree(clips if kind == "folder" else viton, tmp_path / kind))
        config = DataConfig(kind=kind, root=str(root), size=64, gap=10, groups=2, targets=2, **options)
        return root, (open_real if kind == "folder" else open_tryon)(config, 64)

    return copy


def same(one, other):
    pairs = zip(one.__dict__.values(), other.__dict__.values(), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def break_item(root, data, item):
    """Damage the files of an item of the dataset."""
    if hasattr(data, "shots"):
        for frame in data.shots[item].path.glob("*.png"):
            frame.write_bytes(frame.read_bytes()[:40])
    else:
        file = data.pairs[item].person
        file.write_bytes(file.read_bytes()[:400])


# ---- who makes a sample does not matter ----


@pytest.mark.parametrize("kind", ["folder", "vitonhd"])
def test_batches_are_the_same_for_any_number_of_worker_processes(kind, open_copy):
    _, data = open_copy(kind, augment=True, references=(0.5, 0.5))

    def batches(workers):
        loader = DataLoader(data, batch_size=2, collate_fn=collate, num_workers=workers)
        return [batch for batch, _ in zip(loader, range(6), strict=False)]

    alone = batches(0)
    assert len({batch.targets.shape for batch in alone}) == (2 if kind == "folder" else 1)
    assert not np.array_equal(alone[0].target_drawings, alone[1].target_drawings)
    for workers in (1, 2):
        for batch, other in zip(alone, batches(workers), strict=True):
            assert same(batch, other)


# ---- broken files ----


@pytest.mark.parametrize("kind", ["folder", "vitonhd"])
def test_a_broken_file_is_named_once_and_stops_nothing(kind, open_copy, caplog):
    root, data = open_copy(kind, augment=False)
    before = [data[i] for i in range(32)]
    break_item(root, data, 3)
    caplog.clear()
    after = [data[i] for i in range(32)]
    named = [r.getMessage() for r in caplog.records if "passed over" in r.getMessage()]
    name = data.unreadable.names[3]
    assert len(named) == 1
    assert named[0].startswith(f"{name} is passed over, 1 of 8 by now: {root}")
    changed = [i for i in range(32) if not same(before[i], after[i])]
    assert changed == [i for i in range(32) if data.blocks.item(i) == 3]
    assert all(a.targets.shape == b.targets.shape for a, b in zip(before, after, strict=True))
    again = (open_real if kind == "folder" else open_tryon)(
        DataConfig(kind=kind, root=str(root), size=64, gap=10, groups=2, targets=2, augment=False), 64
    )
    if kind == "folder":
        assert same(again[changed[-1]], after[changed[-1]]), "a function of its place and the disk"
    else:
        assert len(again.pairs) == 7, "not even its size can be read"


def test_a_size_without_a_readable_file_gives_way_to_another(open_copy):
    """All samples of a block go over together."""
    root, data = open_copy("folder", augment=False)
    wide = [i for i, shot in enumerate(data.shots) if shot.bucket != data.shots[0].bucket]
    assert len(wide) == 4
    for item in wide:
        break_item(root, data, item)
    shapes = [{data[2 * block + place].targets.shape for place in (0, 1)} for block in range(12)]
    assert shapes == [{(2, *data.shots[0].bucket, 3)}] * 12


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_broken_files_stop_with_their_number(workers, open_copy):
    from scd.cli import one_line

    root, data = open_copy("vitonhd", augment=False)
    for item in range(7):
        break_item(root, data, item)
    loader = DataLoader(data, batch_size=2, collate_fn=collate, num_workers=workers)
    with pytest.raises(UserError) as caught:
        list(loader)
    line = one_line(caught.value)
    said = rf"[67] of 8 cannot be read, too many to go on; the last one: {root}.*"  # two may meet one at once
    assert re.fullmatch(said, line), line
    assert "Traceback" not in line


def test_all_broken_is_one_line(open_copy, monkeypatch):
    root, data = open_copy("vitonhd", augment=False)
    monkeypatch.setattr(unreadable, "MOST", 99)
    for item in range(8):
        break_item(root, data, item)
    with pytest.raises(UserError, match=r"^none of 8 can be read; the last one: "):
        data[0]


def test_candidates_are_all_items_once_those_of_the_size_first():
    sizes = [(1, 1), (2, 2), (1, 1), (3, 3), (2, 2), (1, 1)]
    blocks = Blocks(sizes, 2, 0)
    for index in range(24):
        order = list(blocks.candidates(index))
        assert order[0] == blocks.item(index)
        assert sorted(order) == list(range(6))
        own = [sizes[item] == sizes[order[0]] for item in order]
        assert own == sorted(own, reverse=True)
    orders = {tuple(blocks.candidates(i)) for i in range(24) if blocks.item(i) == 0}
    assert len(orders) > 1, "not always the same one stands in"


# ---- latents ----


def test_kept_latents_of_pairs_are_those_of_their_pictures(viton, tmp_path):
    pipe = make_pipeline(make_clip())
    config = DataConfig(kind="vitonhd", root=str(viton), size=64, groups=2, augment=False)
    data = open_tryon(config, 8)
    kept = latents.with_latents(pipe, data, tmp_path)
    assert len(list(tmp_path.iterdir())) == 8
    for index in (0, 5):
        plain, encoded = collate([data[index]]), collate([kept[index]])
        assert encoded.targets.dtype == torch.float16
        assert torch.equal(plain.regions, encoded.regions)
        assert torch.equal(plain.target_drawings, encoded.target_drawings)
        for part in ("references", "targets"):
            x, y = (getattr(batch, part).flatten(0, 1) for batch in (plain, encoded))
            assert torch.allclose(latents.encode(pipe, x), latents.encode(pipe, y), atol=2e-3), part
        for one, other in zip(
            pipe.training_context(plain.references, [0], None),
            pipe.training_context(encoded.references, [0], encoded.reference_tokens),
            strict=True,
        ):
            assert torch.allclose(one, other, atol=2e-3)


def test_scd_data_encode_resumes_and_names_what_is_broken(scd, clips, viton, tmp_path, monkeypatch):
    """What it wrote is what training looks for, so that nothing is left to encode."""
    folder = make(tmp_path / "sd", tmp_path / "clip", tiny=True) or tmp_path / "sd"
    common = ["--size", 64, "--init", folder, "--image-encoder", tmp_path / "clip", "--device", "cpu"]
    broken = Path(shutil.copytree(viton, tmp_path / "viton"))
    person = find_pairs(broken).training[2].person
    person.write_bytes(person.read_bytes()[:-200])  # its head is whole
    for root, kind, num in ((clips, "folder", 6), (broken, "vitonhd", 7)):
        out = tmp_path / kind
        code, said, err = scd("data", "encode", root, "-o", out, *common)
        assert code == 0, err
        assert json.loads(said.splitlines()[-1])["encoded"] == len(list(out.iterdir())) == num
        assert (f"{person} is damaged" in err) == (kind == "vitonhd")
        code, said, err = scd("data", "encode", root, "-o", out, *common)
        assert (code, json.loads(said.splitlines()[-1])["encoded"]) == (0, 0)
    from scd.config import TrainConfig
    from scd.model import load_init

    pipe = load_init(TrainConfig(init=str(folder), image_encoder=str(tmp_path / "clip")))
    monkeypatch.setattr(latents, "_encoded", None)
    config = ready(DataConfig(kind="folder", root=str(clips), size=64, gap=10))
    assert latents.with_latents(pipe, open_real(config, 4), tmp_path / "folder")[0].targets.ndim == 4
    code, _, err = scd("data", "encode", clips, *common)
    assert (code, "-o: name the folder for the latents" in err) == (2, True)


# ---- check ----


def test_check_names_copies_small_ones_and_is_strict_if_asked(scd, tmp_path):
    lay(tmp_path / "ubc", "train/a.mp4", 1)
    for name in ("train/c.mp4", "test/b.mp4"):
        (tmp_path / "ubc" / name).parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "ubc" / "train" / "a.mp4", tmp_path / "ubc" / name)
    for name in ("train/a.mp4", "train/c.mp4", "test/b.mp4"):
        know_poses(find_clips(tmp_path / "ubc"), name, clip(1)[1])
    code, out, err = scd("data", "prepare", tmp_path / "ubc", "--size", 32)
    assert (code, err) == (0, "")
    figures = json.loads(out.splitlines()[-1])
    assert (figures["copies"], figures["small"], figures["problems"]) == (2, 0, 2)
    assert "train/c.mp4: shows the same as train/a.mp4\n" in out
    leak = "test/b.mp4: shows the same as train/a.mp4, and one of the two is held out: training would see it"
    assert leak in out
    code, _, err = scd("data", "check", tmp_path / "ubc", "--size", 32, "--strict")
    assert (code, err) == (2, f"scd: {tmp_path}/ubc can train, but --strict: problems, 2 of them\n")
    code, out, _ = scd("data", "check", tmp_path / "ubc", "--size", 512)
    assert code == 0
    assert json.loads(out.splitlines()[-1])["small"] == 3
    assert "train/a.mp4: small, enlarged" in out


def test_check_of_pairs_reads_every_picture_whole(scd, viton, tmp_path):
    root = Path(shutil.copytree(viton, tmp_path / "viton"))
    layout = find_pairs(root)
    first, second, third = (pair.person for pair in layout.training[:3])
    second.write_bytes(second.read_bytes()[:-200])
    shutil.copy(first, layout.paired[0].person)
    layout.training[3].garment.write_bytes(b"")
    media.write_image(layout.training[4].region, np.zeros((48, 36), np.uint8), force=True)
    layout.training[5].pose.write_text('{"people": []}')
    code, out, err = scd("data", "check", root, "--size", 32, "--workers", 0)
    assert (code, err) == (0, "")
    figures = json.loads(out.splitlines()[-1])
    assert (figures["training_pairs"], figures["copies"], figures["without_person"]) == (5, 1, 1)
    name = layout.paired[0].person.name
    assert f"test/image/{name}: shows the same as train/image/{first.name}, and one of the two is to" in out
    assert f"train/image/{second.name} is damaged or cut off" in out
    assert f"cloth/{layout.training[3].garment.name} is not a picture" in out
    assert "is black everywhere" in out
    assert third.name not in out


def test_an_empty_set_is_one_line(scd, viton, tmp_path):
    root = Path(shutil.copytree(viton, tmp_path / "viton"))
    (root / "train_pairs.txt").write_text("")
    (root / "test_pairs.txt").write_text("")
    code, _, err = scd("data", "check", root)
    verdict = "it has no pairs to train with; those of its test part can be evaluated"
    assert (code, err) == (2, f"scd: {root} cannot train: {verdict}\n")
    for verb in ("preview", "encode", "bench"):
        code, _, err = scd("data", verb, root, "-o", tmp_path / "x.png")
        assert (code, len(err.splitlines())) == (2, 1), err


# ---- speed ----


@pytest.mark.parametrize("kind", ["folder", "vitonhd"])
def test_scd_data_bench_counts_samples(scd, clips, viton, kind, monkeypatch):
    import scd.cli.data as cli

    monkeypatch.setattr(cli, "STAGE_1", replace(cli.STAGE_1, gap=10))
    code, out, err = scd(
        "data", "bench", clips if kind == "folder" else viton, "--size", 32, "-n", 6, "--workers", 1
    )
    assert (code, err) == (0, "")
    figures = json.loads(out.splitlines()[-1])
    assert (figures["layout"], figures["samples"]) == (kind, 6)
    assert figures["pictures"] >= 12
    whole = 1000 / figures["samples_per_second"]
    assert figures["read_ms"] + figures["draw_ms"] == pytest.approx(whole)
    assert min(figures["read_ms"], figures["draw_ms"], figures["samples_per_second_with_workers"]) > 0
