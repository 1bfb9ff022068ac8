"""Training: exact resume, sample-by-sample accumulation, checkpoints that are whole or absent, and learning
at all."""

import json
import os
import shutil
import signal
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from scd import checkpoint, latents, learning, machine, model, process, run_folder, step, train, world
from scd.backbones.motion import new_motion_adapter, temporal_layers
from scd.cli.train import _stopping_between_steps
from scd.config import PRESETS, TrainConfig, from_json, to_json
from scd.data.collate import collate
from scd.data.heads import head_mask
from scd.data.world import WorldClips, WorldPictures
from scd.pipeline import SCDPipeline
from scd.region import latent_region
from scd.types import BODY_NAMES, UserError
from scd.world.tailor import LABEL

TINY = replace(PRESETS["world-tiny"], steps=6, save_every=3, sample_every=100)


@pytest.fixture(autouse=True)
def no_sample_grids(monkeypatch):
    monkeypatch.setattr("scd.evaluate.sample_grid", lambda *_, **__: {})


def weights(pipe):
    return {k: v.clone() for part in (pipe.unet, pipe.pose_encoder) for k, v in part.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def test_resume_equals_uninterrupted_to_the_bit(tmp_path):
    whole = weights(train.train(TINY, tmp_path / "whole", model.build(TINY)))
    first = weights(train.train(replace(TINY, steps=3), tmp_path / "parts", model.build(TINY)))
    parts = weights(train.train(TINY, tmp_path / "parts", model.build(TINY)))
    assert same(whole, parts)
    assert not same(first, parts)
    rows = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "loss" in r] == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "parts" / "model" / "model_index.json").is_file()
    names = [path.name for path in (tmp_path / "parts").glob("checkpoint-*")]
    assert sorted(names) == ["checkpoint-00000003", "checkpoint-00000006"]


@pytest.mark.parametrize("kind", [lambda text: OSError(28, text), SafetensorError])
def test_a_half_written_checkpoint_is_never_used(tmp_path, monkeypatch, kind):
    """What safetensors raises for a full disk is no OSError."""
    train.train(replace(TINY, steps=3), tmp_path / "run", model.build(TINY))
    good = checkpoint.checkpoints(tmp_path / "run")

    def full(*args, **kwargs):
        raise kind("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(UserError, match=r"No space left on device.*free some space"):
        train.train(TINY, tmp_path / "run", model.build(TINY))
    assert checkpoint.checkpoints(tmp_path / "run") == good
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_what_is_exported_is_kept_too(tmp_path):
    """A run that goes on starts from its newest checkpoint, and never from averaged weights in model/."""
    config = replace(TINY, steps=2, save_every=50, sample_every=1, sample_pictures=0)
    train.train(replace(config, steps=4), tmp_path / "run", model.build(TINY))
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == [
        "checkpoint-00000003", "checkpoint-00000004",
    ], "the newest two"  # fmt: skip


def test_a_stop_keeps_the_step_it_stops_at(tmp_path):
    """Ctrl-C and SIGTERM are noted, and acted on between two steps; up to `save_every` of them were lost."""

    def stop(step, _):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train(TINY, tmp_path / "run", model.build(TINY), stop)
    assert checkpoint.step_of(checkpoint.checkpoints(tmp_path / "run")[-1]) == 5
    whole = weights(train.train(TINY, tmp_path / "whole", model.build(TINY)))
    assert same(weights(train.train(TINY, tmp_path / "run", model.build(TINY))), whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_polite_kill_is_noted_and_a_second_one_acts(number, monkeypatch):
    """Of a terminal that is closed both the shell and the kernel may tell: a second one says nothing new."""
    monkeypatch.setattr(os, "isatty", lambda _: False)  # whose output would end
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with _stopping_between_steps() as stopped:
            assert not stopped()
            signal.raise_signal(number)
            assert stopped()
            if number == signal.SIGHUP:
                signal.raise_signal(number)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT if number == signal.SIGHUP else number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_nohup_is_heeded():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _stopping_between_steps() as stopped:
            assert not stopped()
            signal.raise_signal(signal.SIGHUP)
            assert not stopped()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_program_may_train_in_a_thread():
    def inside():
        with _stopping_between_steps() as stopped:
            seen.append(stopped())

    seen: list[bool] = []
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [False]


def test_the_last_model_is_written_once(tmp_path, monkeypatch):
    written, export = [], learning.export
    monkeypatch.setattr(learning, "export", lambda *given: written.append(export(*given)))
    train.train(replace(TINY, steps=1), tmp_path, model.build(TINY))
    assert len(written) == 1


def test_a_model_that_is_gone_is_written_again_as_learnt(tmp_path):
    config = replace(TINY, steps=2)
    whole = weights(train.train(config, tmp_path, model.start(config, tmp_path)))
    shutil.rmtree(tmp_path / "model")
    train.train(config, tmp_path, model.start(config, tmp_path))
    assert same(weights(SCDPipeline.from_pretrained(tmp_path / "model")), whole)


def test_settings_that_stay_are_not_written_again(tmp_path, monkeypatch):
    """Half a config.json would bar the run from going on."""
    config = replace(TINY, steps=1)
    train.train(config, tmp_path, model.start(config, tmp_path))
    monkeypatch.setattr(run_folder, "replacing", None)
    train.train(config, tmp_path, model.start(config, tmp_path))


def test_without_nice_reading_goes_on(monkeypatch):
    monkeypatch.delattr(os, "nice")  # Windows
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # or this process would ignore Ctrl-C ever after
    machine.yield_the_cores(0)


def test_damaged_checkpoint_and_other_settings_are_named(tmp_path):
    run = tmp_path / "run"
    train.train(replace(TINY, steps=3), run, model.build(TINY))
    with pytest.raises(UserError, match=r"holds a run with other settings \(config.json: seed\)"):
        train.train(replace(TINY, seed=5), run, model.build(TINY))
    train.train(replace(TINY, lr=1e-5, steps=4), run, model.build(TINY))  # what "lower --lr" advises
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    rates = [row["lr"] for row in rows if "lr" in row]
    assert rates[-1] == 1e-5 < rates[0]
    newest = checkpoint.checkpoints(run)[-1]
    (newest / "ema.safetensors").write_bytes(b"1234")
    with pytest.raises(UserError, match=r"damaged checkpoint.*remove this folder"):
        train.train(TINY, run, model.build(TINY))


def batch_of(config, num, **options):
    data = WorldPictures(num, config.data.size, config.data.targets, (1.0,), group=num, **options)
    return [data[i] for i in range(num)]


def test_a_checkpoint_of_other_sizes_is_named(tmp_path):
    pipe = model.build(TINY)
    run = tmp_path / "run"
    train.train(replace(TINY, steps=3), run, pipe)
    other = replace(TINY, network=replace(TINY.network, block_out_channels=(32, 128)))
    with pytest.raises(UserError, match="checkpoint-00000003: holds a network of other sizes: unet"):
        train.train(TINY, run, model.build(other))


def test_gradient_accumulation_of_4_equals_one_batch(tmp_path, monkeypatch):
    """Four people one after the other leave the parameters where four at once do: nothing is shared behind
    the scenes."""
    pipe = model.build(TINY)
    samples = batch_of(TINY, 4)
    given = []

    def fixed(trainee, pipe, batch, generator, config):
        given.append(len(batch.targets))
        z_r, z_0 = (
            pipe.encode_pictures(x.flatten(0, 1).float() / 127.5 - 1)
            for x in (batch.references, batch.targets)
        )
        references = z_r.unflatten(0, (len(batch.references), -1))
        owner = [i // config.data.targets for i in range(len(z_0))]
        drawings = [x.float() / 255 for x in (batch.reference_drawings, batch.target_drawings.flatten(0, 1))]
        t = torch.full((len(z_0),), 500)
        prediction = trainee(
            references, 0.5 * z_0, t, *drawings, pipe.training_context(batch.references, owner), owner
        )
        return (prediction - z_0).square().mean()

    def gradients(groups):
        trainee = train.Trainee(pipe)
        trainee.zero_grad()
        for start in range(0, 4, groups):
            (
                fixed(trainee, pipe, collate(samples[start : start + groups]), None, TINY) * groups / 4
            ).backward()
        return {n: p.grad.clone() for n, p in trainee.named_parameters() if p.grad is not None}

    together, apart = gradients(4), gradients(1)
    assert given == [4, 1, 1, 1, 1]
    scale = max(g.abs().max() for g in together.values())
    assert all((together[n] - apart[n]).abs().max() < 1e-5 * scale for n in together)


def test_accumulation_runs_in_the_trainer(tmp_path, monkeypatch):
    config = replace(TINY, steps=2, accumulation=4)
    learnt = weights(train.train(config, tmp_path / "run", model.build(config)))
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[1]["targets"] == 2 * 4 * 2 * 2
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")  # a cluster's scripts may set it
    assert same(weights(train.train(config, tmp_path / "again", model.build(config))), learnt)


def test_checkpointing_gives_the_same_step(tmp_path):
    a, b = (
        weights(train.train(replace(TINY, steps=1, checkpointing=c), tmp_path / str(c), model.build(TINY)))
        for c in (False, True)
    )
    assert all((a[k] - b[k]).abs().max() < 1e-4 for k in a)


def test_loss_is_over_targets_and_drops_references(monkeypatch):
    """With every reference dropped, the references' pixels cannot matter; with none dropped they do."""
    pipe = model.build(TINY)
    torch.nn.init.normal_(pipe.pose_encoder.conv_out.weight)
    trainee = train.Trainee(pipe)
    batch = collate(batch_of(TINY, 2))
    other = replace(batch, references=255 - batch.references)

    def loss(b, drop):
        return train.step_loss(
            trainee, pipe, b, torch.Generator().manual_seed(0), replace(TINY, drop_reference=drop)
        ).item()

    assert loss(batch, 1.0) == loss(other, 1.0)
    assert loss(batch, 0.0) != loss(other, 0.0)


def test_timesteps_move_to_more_noise(monkeypatch):
    """Shifted by 3, half of a step's timesteps lie in the last quarter; by 1 they are what they were; and a
    part that was rounded up to 1 is still a timestep."""
    parts = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(step.shift(parts, 1.0), parts)
    assert step.shift(torch.tensor([0.0, 0.5]), 3.0).tolist() == [0.0, 0.75]
    pipe, batch = model.build(TINY), collate(batch_of(TINY, 2))
    seen, levels = [], process.noise_levels
    monkeypatch.setattr(process, "noise_levels", lambda s, t: seen.extend(t.tolist()) or levels(s, t))

    def draw(by):
        seen.clear()
        for seed in range(8):
            g = torch.Generator().manual_seed(seed)
            step.step_loss(train.Trainee(pipe), pipe, batch, g, replace(TINY, timestep_shift=by))
        return np.array(seen)

    even, moved = draw(1.0), draw(3.0)
    assert (np.abs(moved - 3 * even / (1 + 2 * even / 1000)) < 4).all()  # timesteps were rounded
    assert (even >= 750).mean() == 0.25
    assert (moved >= 750).mean() == 0.5
    monkeypatch.setattr(torch, "rand", lambda *size, generator: torch.ones(*size))
    assert draw(1.0).max() == 999


def test_heads_count_as_often_as_asked_for():
    """The loss is a weighted mean over places: what an error at a head costs rises as `head_weight` says."""
    pipe = model.build(TINY)
    assert train.make_dataset(TINY, 2)[0].heads is None, "nobody asks for them"
    assert train.make_dataset(replace(TINY, head_weight=2.0), 2)[0].heads is not None
    batch = collate(batch_of(TINY, 2, heads=True))
    trainee = train.Trainee(pipe)

    def loss(weight, b=batch):
        config = replace(TINY, head_weight=weight, drop_reference=0.0)
        return train.step_loss(trainee, pipe, b, torch.Generator().manual_seed(0), config).item()

    everywhere = replace(batch, heads=torch.ones_like(batch.heads))
    nowhere = replace(batch, heads=torch.zeros_like(batch.heads))
    assert loss(5.0, everywhere) == pytest.approx(loss(1.0), rel=1e-6)
    assert loss(5.0, nowhere) == pytest.approx(loss(1.0), rel=1e-6)
    # Weighted means by hand: (rest + w heads) / (1 + (w - 1) share), linear in w once multiplied out
    heads = step._on_latents(batch.heads, torch.zeros(4, 8, 4, 4))
    share = step._weigh(None, heads, 2.0).mean().item() - 1
    assert 0 < share < 0.5
    one, two, five = (loss(w) * (1 + (w - 1) * share) for w in (1.0, 2.0, 5.0))
    assert two > one
    assert five - one == pytest.approx(4 * (two - one), rel=1e-4)


JOINT = replace(TINY, head_weight=3.0, data=replace(TINY.data, tasks=(0.3, 0.4, 0.3), garments=(0.5, 0.5)))
TRYON = replace(TINY, data=replace(TINY.data, tasks=(0.0, 1.0, 0.0)))


class Spoken(torch.nn.Module):
    """A trainee that says one learnable tensor, and keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.said = torch.nn.Parameter(torch.randn(4, 8, 4, 4))

    def forward(self, references, z_t, *_):
        self.z_t = z_t
        return self.said


def test_nothing_outside_the_region_is_noised_or_learnt_from():
    pipe = model.build(TRYON)
    data = train.make_dataset(TRYON, 2)
    batch = collate([data[i] for i in range(2)])
    spoken = Spoken()
    train.step_loss(spoken, pipe, batch, torch.Generator().manual_seed(0), TRYON).backward()
    z_0 = latents.encode(pipe, batch.targets.flatten(0, 1), torch.Generator().manual_seed(0))
    region = latent_region(batch.regions.flatten(0, 1)[:, 0].numpy() > 0)
    outside = ~torch.from_numpy(region)[:, None].expand_as(z_0)
    assert 0.1 < outside.float().mean() < 0.9
    assert torch.equal(spoken.z_t[outside], z_0[outside])
    assert (spoken.said.grad[outside] == 0).all()
    assert (spoken.said.grad[~outside] != 0).all()


def test_a_garment_has_no_pose_features():
    """What training gives a reference whose drawing is black is what `encode_reference` gives it without a
    pose: nothing, however bright the encoder's bias is."""
    pipe = model.build(TINY)
    torch.nn.init.normal_(pipe.pose_encoder.conv_out.weight)
    torch.nn.init.normal_(pipe.pose_encoder.conv_out.bias)
    trainee = train.Trainee(pipe).eval()
    references, rows = torch.randn(1, 2, 8, 4, 4), torch.randn(1, 8, 4, 4)
    shown, drawing = torch.rand(1, 2, 3, 32, 32), torch.rand(1, 3, 32, 32)
    shown[:, 1] = 0
    context = torch.zeros(2, 2, 32), torch.zeros(1, 2, 32)
    with torch.no_grad():
        said = trainee(references, rows, torch.tensor([500]), shown, drawing, context, [0])
        features = torch.stack([pipe.pose_encoder(shown[0, :1])[0], torch.zeros(32, 4, 4)])
        cache = step.extract(pipe.unet, references[0], 0, features, context[0]).grouped(2)
        expected = step.denoise(
            pipe.unet, rows, torch.tensor([500]), pipe.pose_encoder(drawing), context[1], cache, [0]
        )
    assert (said - expected).abs().max() < 1e-5


@pytest.mark.parametrize("config", [JOINT, TRYON], ids=["joint", "tryon"])
def test_try_on_trains_and_resumes_to_the_bit(tmp_path, config):
    whole = weights(train.train(config, tmp_path / "whole", model.build(config)))
    train.train(replace(config, steps=3), tmp_path / "parts", model.build(config))
    assert same(whole, weights(train.train(config, tmp_path / "parts", model.build(config))))


SEPARATE = replace(TINY, reference_network="separate")


def separate_pipe(tmp_path, config=SEPARATE):
    return model.start(config, tmp_path)


def test_a_reference_network_of_its_own_starts_as_the_same_network(tmp_path):
    """A copy's features under the denoiser's projections are the denoiser's own keys and values: the two
    variants of METHOD 9 start at one prediction."""
    two = separate_pipe(tmp_path / "two")
    one = SCDPipeline.from_pipe(two, reference_unet=None)
    batch = collate(batch_of(TINY, 2))
    losses = [
        train.step_loss(train.Trainee(pipe), pipe, batch, torch.Generator().manual_seed(0), TINY).item()
        for pipe in (one, two)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("drop", [0.0, 1.0], ids=["read", "dropped"])
@pytest.mark.parametrize("learn", ["all", "attention"])
def test_everything_that_learns_of_two_networks_has_a_gradient(tmp_path, learn, drop):
    from scd import learning

    config = replace(SEPARATE, learn=learn, drop_reference=drop)
    pipe = separate_pipe(tmp_path, config)
    torch.nn.init.normal_(pipe.pose_encoder.conv_out.weight)
    trainee = train.Trainee(pipe).train()
    learning.choose(pipe, config)
    batch = collate(batch_of(TINY, 2))
    train.step_loss(trainee, pipe, batch, torch.Generator().manual_seed(0), config).backward()
    without = {n for n, p in trainee.named_parameters() if p.requires_grad and p.grad is None}
    assert not without, "training in several processes would stop"
    reader = dict(pipe.reference_unet.named_parameters())
    assert not reader["conv_out.weight"].requires_grad
    last = "up_blocks.1.attentions.1.transformer_blocks.0"
    assert not reader[f"{last}.attn2.to_q.weight"].requires_grad
    first = reader["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.weight"]
    assert bool(first.grad.any()) == (drop == 0)


def test_checkpointing_of_two_networks_gives_the_same_step(tmp_path):
    trained = []
    for checkpointing in (False, True):
        config = replace(SEPARATE, steps=1, checkpointing=checkpointing)
        folder = tmp_path / str(checkpointing)
        trained.append(train.train(config, folder, separate_pipe(folder, config)))
    assert [pipe.reference_unet.is_gradient_checkpointing for pipe in trained] == [False, True]
    for name in ("unet", "reference_unet"):
        a, b = (getattr(pipe, name).state_dict() for pipe in trained)
        assert all((a[k] - b[k]).abs().max() < 1e-4 for k in a)


def test_two_networks_train_resume_and_load(tmp_path):
    whole = train.train(SEPARATE, tmp_path / "whole", separate_pipe(tmp_path / "whole"))
    train.train(replace(SEPARATE, steps=3), tmp_path / "parts", separate_pipe(tmp_path / "parts"))
    parts = train.train(SEPARATE, tmp_path / "parts", separate_pipe(tmp_path / "parts"))
    for name in ("unet", "reference_unet"):
        assert same(getattr(whole, name).state_dict(), getattr(parts, name).state_dict())
    read, own = whole.reference_unet.state_dict(), whole.unet.state_dict()
    assert not torch.equal(read["conv_in.weight"], own["conv_in.weight"])
    loaded = SCDPipeline.from_pretrained(tmp_path / "whole" / "model")
    assert same(loaded.reference_unet.state_dict(), read)
    with pytest.raises(UserError, match=r"--reference-network separate: .* not lora"):
        separate_pipe(tmp_path / "lora", replace(SEPARATE, learn="lora"))


def test_a_model_of_other_drawings_learns_ours_and_says_so(tmp_path, caplog):
    """What a run is saved with is what its data was: DWPose's style is not drawn in training."""
    pipe = model.start(SEPARATE, tmp_path / "first")
    pipe.register_to_config(pose_drawing="dwpose", reference_pose=False)
    pipe.save_pretrained(tmp_path / "theirs")
    config = replace(TINY, init=str(tmp_path / "theirs"))
    model.start(config, tmp_path / "run")
    assert "learnt other drawings of poses" in caplog.text
    saved = SCDPipeline.from_pretrained(tmp_path / "run" / "model")
    assert (saved.config.pose_drawing, saved.config.reference_pose) == ("openpose", True)
    assert saved.reference_unet is not None
    with pytest.raises(UserError, match="its picture network has to learn that first"):
        model.start(replace(MOTION, init=config.init), tmp_path / "clips")


@pytest.mark.slow
def test_overfitting_one_person_works(tmp_path):
    config = replace(
        TINY,
        steps=300,
        overfit=1,
        save_every=1000,
        lr=2e-3,
        drop_reference=0.0,
        data=replace(TINY.data, augment=False),
    )
    train.train(config, tmp_path, model.build(config))
    losses = [
        json.loads(line)["loss"]
        for line in (tmp_path / "log.jsonl").read_text().splitlines()
        if "loss" in line
    ]
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])


def test_config_round_trip_and_errors():
    assert from_json(to_json(PRESETS["world-pictures"])) == PRESETS["world-pictures"]
    with pytest.raises(UserError, match="unknown settings speed for TrainConfig"):
        from_json('{"speed": 1}')
    with pytest.raises(UserError, match=r"unknown settings step for TrainConfig; did you mean steps\?"):
        from_json('{"step": 1}')


def test_learning_rate_schedule():
    config = TrainConfig(lr=1.0, warmup=4, steps=10, cooldown=2)
    assert [train.learning_rate(config, i) for i in (0, 3, 5, 8, 9)] == [0.25, 1.0, 1.0, 1.0, 0.5]


def test_samples_depend_on_their_index_alone():
    a, b = (WorldPictures(100, 32, 2, (0.5, 0.5), group=2) for _ in range(2))
    b[7]
    for x, y in zip(a[3].__dict__.values(), b[3].__dict__.values(), strict=True):
        assert np.array_equal(x, y)
    assert len(a[2].references) == len(a[3].references)
    repeated = WorldPictures(100, 32, 2, repeat=1, augment=False)
    assert (repeated[0].targets == repeated[5].targets).all()


def test_reused_scenes_play_other_roles():
    data = WorldPictures(100, 32, 3, (1.0,), group=2, augment=False, reuse=2)
    first, again, other = data[0], data[2], data[4]

    def pictures(sample):
        return {p.tobytes() for p in (*sample.references, *sample.targets)}

    assert pictures(first) == pictures(again)
    assert (first.references != again.references).any()
    assert not pictures(first) & pictures(other)
    assert not pictures(first) & pictures(data[1])
    fresh = WorldPictures(100, 32, 3, (1.0,), group=2, augment=False, reuse=2)
    assert (fresh[2].targets == again.targets).all(), "a sample is a function of its index alone"


def test_a_scene_stays_with_one_worker():
    """Workers take blocks in turn, and only one that had a scene before need not draw it again."""
    data = WorldPictures(100, 32, 3, (1.0,), group=2, augment=False, reuse=2, apart=3)
    seeds = [[data.seed_of(block, place) for place in range(2)] for block in range(12)]
    for block, of_block in enumerate(seeds):
        assert [b for b, other in enumerate(seeds) if other == of_block] == [
            block % 3 + start for start in range(block // 6 * 6, block // 6 * 6 + 6, 3)
        ]
    assert len({seed for of_block in seeds for seed in of_block}) == 12
    config = replace(TINY, data=replace(TINY.data, workers=3, reuse=2, groups=2))
    trained_on = train.make_dataset(config, 100)
    assert isinstance(trained_on, WorldPictures)
    assert trained_on.seed_of(3, 0) == trained_on.seed_of(0, 0) != trained_on.seed_of(1, 0)


# ---- stage 2: clips ----

MOTION = replace(
    TINY, name="tiny-motion", learn="motion", motion_heads=2, steps=4, save_every=2, sample_every=2,
    data=replace(TINY.data, frames=3, strides=(1, 2), references=(0.5, 0.5)),
)  # fmt: skip


def motion_pipe():
    pipe = model.build(TINY)
    return SCDPipeline.from_pipe(pipe, motion_adapter=new_motion_adapter(pipe.unet, 2))


@pytest.fixture
def no_clip_samples(monkeypatch):
    monkeypatch.setattr("scd.evaluate_clips.sample_clips", lambda *args: {})


def test_stage_2_learns_temporal_layers_alone_and_resumes(tmp_path, no_clip_samples):
    before = motion_pipe()
    start = {name: value.clone() for name, value in before.unet.state_dict().items()}
    whole = train.train(MOTION, tmp_path / "whole", before)
    changed = {name for name, value in whole.unet.state_dict().items() if not torch.equal(value, start[name])}
    assert changed
    assert all(".motion_modules." in name for name in changed)
    resumed = motion_pipe()
    resumed.unet.load_state_dict(start)
    train.train(replace(MOTION, steps=2), tmp_path / "parts", resumed)
    again = motion_pipe()
    again.unet.load_state_dict(start)
    parts = train.train(MOTION, tmp_path / "parts", again)
    assert same(weights(whole), weights(parts))
    assert (tmp_path / "parts" / "model" / "motion_adapter" / "config.json").is_file()


@pytest.mark.parametrize("learn", ["motion", "lora"])
def test_a_model_of_two_networks_goes_on(tmp_path, no_clip_samples, learn):
    """Stage 2, and a LoRA: the reference network is read, and stays as it is."""
    separate_pipe(tmp_path / "two")
    start = {"motion": replace(MOTION, steps=1), "lora": replace(TINY, learn="lora", steps=1)}[learn]
    config = replace(start, init=str(tmp_path / "two" / "model"))
    pipe = model.start(config, tmp_path / "run")
    before = {name: value.clone() for name, value in pipe.reference_unet.state_dict().items()}
    read = []
    pipe.reference_unet.register_forward_hook(lambda *_: read.append(1))
    train.train(config, tmp_path / "run", pipe)
    assert read
    saved = SCDPipeline.from_pretrained(tmp_path / "run" / "model")
    assert same(saved.reference_unet.state_dict(), before)
    assert (tmp_path / "run" / "lora.safetensors").is_file() == (learn == "lora")


def test_extract_then_denoise_equals_the_joint_pass(monkeypatch):
    """The forward of clips, at one frame a clip, gives the joint pass's predictions."""
    torch.manual_seed(0)
    pipe = motion_pipe()
    trainee = train.Trainee(pipe).eval()
    z = torch.randn(2, 2, 8, 4, 4)
    rows = torch.randn(2, 8, 4, 4)
    drawings = torch.rand(2, 2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    context = torch.zeros(4, 2, 32), torch.zeros(2, 2, 32)
    arguments = (z, rows, torch.tensor([900, 300]), *drawings, context, [0, 1])
    with torch.no_grad():
        joined = trainee(*arguments, num_frames=1)
        twice = torch.cat([x.repeat_interleave(2, 0) for x in (rows,)])
        as_clips = trainee(
            z, twice, torch.tensor([900, 900, 300, 300]), drawings[0], drawings[1].repeat_interleave(2, 0),
            (context[0], context[1].repeat_interleave(2, 0)), [0, 0, 1, 1], num_frames=2,
        )  # fmt: skip
    # Untrained temporal layers pass nothing: every frame is the picture
    assert (as_clips[::2] - joined).abs().max() < 1e-5 * joined.std()
    assert (as_clips[1::2] - joined).abs().max() < 1e-5 * joined.std()


def test_frames_of_one_noise_learn_from_one_noise(monkeypatch):
    """With `shared_noise` the frames of a clip are noised alike, clips are not."""
    seen = []
    monkeypatch.setattr(process, "noise", lambda z_0, eps, *levels: seen.append(eps) or z_0 + eps)
    batch = collate([WorldClips(2, 32, 3, (1,), references=(1.0,), group=2)[i] for i in range(2)])
    for shared in (False, True):
        pipe = motion_pipe()
        pipe.register_to_config(shared_noise=shared)
        train.step_loss(train.Trainee(pipe), pipe, batch, torch.Generator().manual_seed(0), MOTION)
    own, one = (eps.unflatten(0, (2, 3)) for eps in seen)
    assert not torch.equal(own[:, 0], own[:, 1])
    assert torch.equal(one, one[:, :1].expand_as(one))
    assert not torch.equal(one[0, 0], one[1, 0])


def test_no_gradient_reaches_the_extract_pass_of_stage_2():
    pipe = motion_pipe()
    trainee = train.Trainee(pipe).train()
    from scd import learning

    learning.choose(pipe, MOTION)
    for layer in temporal_layers(pipe.unet):
        torch.nn.init.normal_(layer.proj_out.weight, std=0.1)
    sample = collate([WorldClips(1, 32, 3, (1,), references=(1.0,))[0]])
    loss = train.step_loss(trainee, pipe, sample, torch.Generator().manual_seed(0), MOTION)
    loss.backward()
    gradients = {n: p.grad for n, p in trainee.named_parameters() if p.grad is not None}
    with_gradient = {name for name, gradient in gradients.items() if gradient.abs().sum() > 0}
    assert with_gradient
    assert all(".motion_modules." in name for name in with_gradient)


def test_attention_learns_from_the_extract_pass_of_clips():
    """What alone learns there are attention layers: a reference's keys come from them too."""
    from scd import learning

    pipe = motion_pipe()
    torch.nn.init.normal_(pipe.pose_encoder.conv_out.weight)
    learning.choose(pipe, replace(MOTION, learn="attention"))
    trainee = train.Trainee(pipe).train()
    seen = []
    original = step.extract
    step.extract = lambda *args: seen.append(original(*args)) or seen[-1]
    try:
        sample = collate([WorldClips(1, 32, 3, (1,), references=(1.0,))[0]])
        train.step_loss(trainee, pipe, sample, torch.Generator().manual_seed(0), MOTION)
    finally:
        step.extract = original
    assert all(kv[0].requires_grad for kv in seen[0].entries.values())


def test_clips_are_successive_frames_of_one_scene():
    data = WorldClips(4, 32, 4, (2,), references=(1.0,), augment=False)
    sample = data[1]
    assert sample.targets.shape == (4, 32, 32, 3)
    assert sample.references.shape == (1, 32, 32, 3)
    steps = [np.abs(a.astype(int) - b).mean() for a, b in pairwise(sample.targets)]
    other = np.abs(sample.targets[0].astype(int) - data[2].targets[0]).mean()
    assert max(steps) < other
    again = WorldClips(4, 32, 4, (2,), references=(1.0,), augment=False)[1]
    assert np.array_equal(sample.targets, again.targets), "a function of the index"


def test_head_mask_covers_heads_and_little_else():
    """By the world's labels: 99 in 100 pixels of faces and hair, which are a hundredth of the picture; and
    under a twentieth of the picture in all."""
    covered, area, heads = [], [], []
    for seed in range(8):
        for index in range(3):
            view = world.Scene.from_seed(seed).view(index, size=128)
            mask = head_mask(view.pose, (128, 128))[..., 0].astype(bool)
            head = np.isin(view.labels, [LABEL["face"], LABEL["hair"]])
            covered.append((mask & head).sum() / max(head.sum(), 1))
            area.append(mask.mean())
            heads.append(head.mean())
    assert np.mean(covered) > 0.99
    assert np.mean(area) < 0.05
    assert round(np.mean(heads), 2) == 0.01


def test_nothing_of_a_head_is_no_mask():
    pose = world.Scene.from_seed(0).view(0, size=128).pose
    scores = pose.scores.copy()
    scores[BODY_NAMES.index("neck")] = 0
    assert head_mask(pose, (32, 40)).shape == (32, 40, 1)
    assert not head_mask(replace(pose, scores=scores), (32, 40)).any()
