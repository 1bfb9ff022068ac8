"""Devices and offload: nothing strays from the execution device, in training neither, whatever moves the
weights, and weights are touched only where they lie. Checked on a played accelerator (runs/second_device.py),
with real hooks."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from conftest import make_clip, make_picture, make_pipeline, make_pose, make_scheduler
from second_device import Accelerator, device_of, second_device
from test_clips import make_clip as make_poses
from test_clips import make_motion_pipeline, make_reader_pipeline
from test_lora import write as write_lora
from test_train import MOTION, TINY

from scd import SCDPipeline, checkpoint, model, train
from scd.backbones.motion import has_motion, new_motion_adapter
from scd.codec import PatchCodec
from scd.reference import Reference
from scd.schedulers import KNOWN
from scd.windows import windows

pytestmark = pytest.mark.usefixtures("one_thread")
CUDA = torch.device("cuda:0")


def with_codec():
    pipe = make_pipeline()
    pipe.vae = PatchCodec(4)
    return pipe


NETWORKS = {
    "picture": lambda: make_pipeline(make_clip()),
    "motion": make_motion_pipeline,
    "codec": with_codec,
    "reader": make_reader_pipeline,
}
WAYS = {
    "move": lambda pipe: pipe.to("cuda"),
    "model": lambda pipe: pipe.enable_model_cpu_offload(device="cuda"),
    "sequential": lambda pipe: pipe.enable_sequential_cpu_offload(device="cuda"),
    "leaves": lambda pipe: pipe.enable_group_offload(CUDA, offload_type="leaf_level"),
    "blocks": lambda pipe: pipe.enable_group_offload(CUDA, num_blocks_per_group=1),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def use(pipe, folder):
    """Most of what a pipeline is asked for; every result, on the CPU."""
    results = []

    def paint(reference, poses, **kwargs):
        # Two steps once; the rest asks for what differs before and after the loop
        steps = 1 if results else 2
        settings = {"generator": seeded(), "output_type": "pt", "num_inference_steps": steps, **kwargs}
        output = pipe(reference, poses, window=4, overlap=2, **settings)
        results.append(output.images if output.frames is None else output.frames)

    one = pipe.encode_reference(make_picture(0), make_pose(0))
    paint(one, make_pose(1))  # guided
    paint(one, [make_pose(1), make_pose(2)], guidance_scale=1.0, output_type="latent")
    paint(None, make_pose(1))
    paint(pipe.encode_reference([make_picture(0), make_picture(1)], [make_pose(0), None]), make_pose(1))
    one.save(folder / "one.safetensors")
    read, other = Reference.load(folder / "one.safetensors"), pipe.encode_reference(make_picture(2))
    paint(read + other, make_pose(1))
    paint([read, other], [make_pose(1), make_pose(2)])
    paint(one, make_pose(3), latents=torch.randn(1, 4, 8, 8, generator=seeded(1)), output_type="np",
          height=64, width=64)  # fmt: skip
    region = np.arange(64 * 64).reshape(64, 64) % 64 < 40
    paint(other, None, person=[make_picture(3), make_picture(4)], region=region)
    if has_motion(pipe.unet):
        paint(one, make_poses(3))
        paint(one, make_poses(7), output_type="pil")  # windows
        paint(one, [make_poses(5), make_poses(5, 200)], work_folder=folder)
        paint(one, [make_poses(5), make_poses(5, 200)], work_folder=folder)  # goes on from the last step
    devices = {device_of(x) for kv in one.cache.entries.values() for x in kv} | {device_of(one.context)}
    arrays = [r.cpu().numpy() if isinstance(r, torch.Tensor) else np.asarray(r) for r in results]
    return arrays, devices, {device_of(r) for r in results if isinstance(r, torch.Tensor)}


@pytest.fixture(scope="module")
def truth_of(tmp_path_factory):
    """What a network gives where everything lies on the CPU."""
    return cache(lambda name: use(NETWORKS[name](), tmp_path_factory.mktemp(name))[0])


# Every way once with clips, which use all that pictures do, and every network once more; the rest is slow
PAIRS = {("reader", "model"), *((name, "move") for name in NETWORKS), *(("motion", way) for way in WAYS)}


@pytest.mark.parametrize(
    ("network", "way"),
    [
        pytest.param(network, way, marks=() if (network, way) in PAIRS else pytest.mark.slow)
        for network in NETWORKS for way in WAYS
    ],
)  # fmt: skip
def test_nothing_strays_from_the_execution_device(network, way, truth_of, tmp_path):
    """Pictures, clips with windows, guidance, several references, from files too: the same to the bit, and
    no operation mixes devices."""
    with second_device() as accelerator:
        pipe = NETWORKS[network]()
        WAYS[way](pipe)
        assert pipe._execution_device.type == "cuda"
        arrays, caches, results = use(pipe, tmp_path)
        weights = {device_of(p).type for part in (pipe.unet, pipe.vae) for p in part.parameters()}
    assert caches == {CUDA}
    assert CUDA in results
    assert weights == {"cuda"} if way == "move" else "cuda" not in weights
    assert accelerator.peak_bytes > 0
    assert len(arrays) == len(truth_of(network))
    for array, truth in zip(arrays, truth_of(network), strict=True):
        assert np.array_equal(array, truth)


@pytest.mark.parametrize(
    ("network", "when", "way"),
    [
        # the other ways move weights by the same hooks, of one layer or block and not of a network
        pytest.param(network, when, way, marks=() if way == often else pytest.mark.slow)
        for network, when, often in (
            ("picture", "before", "move"), ("motion", "after", "model"), ("reader", "before", "model"),
        )
        for way in WAYS
    ],
)  # fmt: skip
def test_a_lora_strays_neither(network, when, way, tmp_path, monkeypatch):
    """Loaded before or after the weights are sent away: they stay away, and the LoRA acts."""
    # diffusers looks for the accelerator again when it has loaded one
    monkeypatch.setattr("diffusers.pipelines.pipeline_utils.get_device", lambda: "cuda")
    file = tmp_path / "lora.safetensors"

    def paint(pipe):
        poses = make_poses(3) if has_motion(pipe.unet) else make_pose(1)
        reference = pipe.encode_reference(make_picture(0), make_pose(0))
        output = pipe(reference, poses, generator=seeded(), output_type="np", num_inference_steps=1)
        return output.images if output.frames is None else output.frames

    with_lora = NETWORKS[network]()
    write_lora(file, with_lora, "lcm")
    plain = paint(with_lora)
    with_lora.load_lora_weights(file)
    truth = paint(with_lora)
    assert np.abs(truth - plain).max() > 0.01
    with second_device() as accelerator:
        pipe = NETWORKS[network]()
        steps = [lambda: pipe.load_lora_weights(file), lambda: WAYS[way](pipe)]
        for step in steps if when == "before" else steps[::-1]:
            step()
        assert np.array_equal(paint(pipe), truth)
        weights = sum(p.numel() * 4 for p in pipe.unet.parameters())
        assert (accelerator.bytes > weights) == (way == "move")
        pipe.unload_lora_weights()
        assert np.array_equal(paint(pipe), plain)


@pytest.mark.parametrize("name", KNOWN)
def test_samplers_stray_neither(name):
    """Each on the played accelerator; those of a schedule without zero-terminal SNR all fit. What they draw
    comes from the caller's generators, on the host."""
    plain = make_scheduler(prediction_type="epsilon", rescale_betas_zero_snr=False)

    def paint(way):
        scheduler = getattr(diffusers, f"{name}Scheduler").from_config(plain.config)
        pipe = SCDPipeline(**{**make_pipeline().components, "scheduler": scheduler}, default_steps=5)
        pipe.set_progress_bar_config(disable=True)
        way(pipe)
        reference = pipe.encode_reference(make_picture(0), make_pose(0))
        return pipe(reference, [make_pose(1), make_pose(2)], generator=seeded(), output_type="np").images

    truth = paint(lambda pipe: None)
    with second_device():
        assert np.array_equal(paint(WAYS["move"]), truth)


def test_a_loop_that_was_cut_off_goes_on_there(tmp_path):
    """The state and a multistep sampler's memory come back to the accelerator."""

    class CutOffError(Exception):
        pass

    def cut(pipe, index, t, tensors):
        if index == 4:
            raise CutOffError
        return {}

    with second_device():
        pipe = make_pipeline().to("cuda")
        pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
        reference = pipe.encode_reference(make_picture(0), make_pose(0))
        settings = {"num_inference_steps": 6, "output_type": "latent"}
        whole = pipe(reference, make_pose(1), generator=seeded(), **settings).images
        with pytest.raises(CutOffError):
            pipe(reference, make_pose(1), generator=seeded(), work_folder=tmp_path, callback_on_step_end=cut,
                 **settings)  # fmt: skip
        steps = []
        pipe.unet.register_forward_pre_hook(lambda *_: steps.append(1))
        rest = pipe(reference, make_pose(1), generator=seeded(), work_folder=tmp_path, **settings).images
        assert len(steps) == 2
        assert rest.device == CUDA
        assert torch.equal(rest.cpu(), whole.cpu())


def test_a_window_is_all_that_stands_on_the_accelerator():
    """However long the clip, up to the decoded frames."""
    peaks = []
    for frames in (12, 48):
        with second_device() as accelerator:
            pipe = make_motion_pipeline().to("cuda")
            reference = pipe.encode_reference(make_picture(0, (32, 32)), make_pose(0))
            accelerator.restart()
            pipe(reference, make_poses(frames), num_inference_steps=2, window=8, overlap=2, output_type="np",
                 generator=seeded())  # fmt: skip
            peaks.append(accelerator.peak_bytes)
    assert peaks[0] == peaks[1]


TRAINING = {
    "all": replace(TINY, steps=2, save_every=1, log_every=1),
    "lora": replace(TINY, steps=2, save_every=1, log_every=1, learn="lora"),
    "motion": replace(MOTION, steps=2, save_every=1, log_every=1, sample_pictures=0),
}


@pytest.mark.parametrize("config", TRAINING.values(), ids=TRAINING.keys())
def test_training_strays_neither(config, tmp_path, monkeypatch):
    """Forward, backward, optimizer, average, checkpoint and resume: the same weights to the bit."""
    config = replace(config, precision="no", sample_pictures=0)

    def build():
        pipe = model.build(config)
        if config.learn == "motion":
            torch.manual_seed(0)
            pipe = SCDPipeline.from_pipe(pipe, motion_adapter=new_motion_adapter(pipe.unet, 2))
        # Training on the host lays weights so, and on some CPUs the kernels of the two orders differ by a bit
        for part in (pipe.unet, pipe.pose_encoder):
            part.to(memory_format=torch.channels_last)
        return pipe

    def weights(pipe):
        parts = (pipe.unet.state_dict(), pipe.pose_encoder.state_dict())
        return {name: value.cpu().clone() for part in parts for name, value in part.items()}

    truth = weights(train.train(config, tmp_path / "host", build()))
    monkeypatch.setattr("accelerate.Accelerator.device", CUDA)
    load, moments = checkpoint.load_checkpoint, []

    def spy(path, network, optimizer, ema):
        meta = load(path, network, optimizer, ema)
        moments.extend(device_of(value) for state in optimizer.state.values() for value in state.values())
        return meta

    monkeypatch.setattr(checkpoint, "load_checkpoint", spy)
    with second_device() as accelerator:
        train.train(replace(config, steps=1), tmp_path / "far", build().to("cuda"))
        pipe = train.train(config, tmp_path / "far", build().to("cuda"))
        assert {device_of(p) for p in pipe.unet.parameters()} == {CUDA}
        learnt = weights(pipe)
    assert learnt.keys() == truth.keys()
    assert all(torch.equal(learnt[name], truth[name]) for name in truth)
    assert set(moments) == {CUDA}, "the fused optimizer refuses a count of steps that lies elsewhere"
    assert accelerator.peak_bytes > 0


# ---- the play itself ----


def test_the_played_accelerator_refuses_what_a_real_one_refuses():
    host = torch.arange(4.0)
    with second_device():
        far = host.to("cuda")
        assert far.device == CUDA
        assert far.is_cuda
        assert host.device.type == "cpu"
        index = torch.tensor([0, 1], device="cuda")
        for mixed in (
            lambda: far + host,
            lambda: torch.cat([far, host]),
            lambda: far @ host,
            lambda: torch.nn.functional.linear(far, host[None]),
            lambda: torch.stack([host, far]),
            lambda: host[index],
            lambda: torch.where(far > 1, far, host),
        ):
            with pytest.raises(RuntimeError, match="all tensors to be on the same device"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            far.numpy()
        with pytest.raises(NotImplementedError, match="meta"):
            far.to("meta").to("cpu")
        # what works there works here
        assert (far * torch.tensor(2.0)).device == CUDA
        assert far[torch.tensor([0, 1])].device == CUDA
        assert host.clone().copy_(far).device.type == "cpu"
        assert torch.zeros(2, device=far.device).device == far[1:].device == far.new_zeros(1).device == CUDA
        assert host[index[0]] == 0
        assert host.to(far).device == CUDA


def test_the_played_accelerator_counts_bytes():
    with second_device() as accelerator:
        x = torch.zeros(1000, device="cuda")
        y = x[:500].view(5, 100)  # no memory of its own
        assert accelerator.bytes == 4000
        z = x.half() + 1  # two of 2,000, of which one is dropped
        assert (accelerator.bytes, accelerator.peak_bytes) == (6000, 8000)
        del x, z
        assert accelerator.bytes == 4000
        accelerator.restart()
        y = y.to("cpu")
        assert (accelerator.bytes, accelerator.peak_bytes) == (0, 4000)
        layer = torch.nn.Linear(10, 10).to("cuda")
        assert accelerator.bytes == 440
        layer.to("cpu")
        assert accelerator.bytes == 0
    assert isinstance(accelerator, Accelerator)


# ---- who touches weights, and in which order ----


class Touches(torch.overrides.TorchFunctionMode):
    """Notes every operation on a component's weights, views of them included, while that component's forward,
    or a method that calls accelerate's offload hook (`encode`, `decode`), is not running: on an offloaded
    model they would be on the wrong device."""

    METADATA = ("__get__", "is_floating_point", "numel", "size", "dim", "__hash__")  # need no values

    def __init__(self, pipe):
        super().__init__()
        self.parts = {n: m for n, m in pipe.components.items() if isinstance(m, torch.nn.Module)}
        self.parts.pop("motion_adapter", None)  # its parameters are the network's own
        self.owner = {self.address(p): n for n, m in self.parts.items() for p in m.parameters()}
        self.running, self.order, self.wrong = [], [], set()
        for name, module in self.parts.items():
            module.register_forward_pre_hook(lambda *_, name=name: self.enter(name))
            module.register_forward_hook(lambda *_: self.leave())
            if hasattr(module, "encode"):
                module._hf_hook = SimpleNamespace(pre_forward=lambda *_, name=name: self.enter(name))
                for method in ("encode", "decode"):
                    setattr(module, method, self.ended(getattr(module, method)))

    def enter(self, name):
        self.running.append(name)
        if not self.order or self.order[-1] != name:
            self.order.append(name)

    def leave(self):
        self.running.pop()  # and return nothing: a hook's return value would replace the output

    def ended(self, method):
        def call(*args, **kwargs):
            depth = len(self.running)
            try:
                return method(*args, **kwargs)
            finally:
                del self.running[depth:]

        return call

    @staticmethod
    def address(tensor):
        return tensor.untyped_storage().data_ptr()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") not in self.METADATA:
            for leaf in torch.utils._pytree.tree_leaves((args, kwargs or {})):
                name = self.owner.get(self.address(leaf)) if isinstance(leaf, torch.Tensor) else None
                if name is not None and name not in self.running:
                    self.wrong.add((name, getattr(function, "__name__", str(function))))
        return function(*args, **(kwargs or {}))


READ = ["vae", "pose_encoder", "image_encoder", "reference_unet", "unet"]


@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
@pytest.mark.parametrize("network", NETWORKS)
def test_weights_are_touched_where_they_lie_and_networks_change_once_a_window(network, lora, tmp_path):
    """Inside a component's forward or a hooked method only; with model offload each change of the running
    component may be a transfer of a whole network."""
    pipe = NETWORKS[network]()
    if lora:
        write_lora(tmp_path / "lora.safetensors", pipe, "lcm")
        pipe.load_lora_weights(tmp_path / "lora.safetensors")
    stamp = pipe.stamp  # reads weights wherever they lie, and moves nothing
    pipe.__class__ = type("Stamped", (SCDPipeline,), {"stamp": stamp})
    read = [name for name in READ if getattr(pipe, name) is not None]
    with Touches(pipe) as touches:
        pipe.encode_reference([make_picture(0), make_picture(1)], [make_pose(0), make_pose(1)])
        assert touches.order == 2 * read
        touches.order.clear()
        reference = pipe.encode_reference(make_picture(0), make_pose(0))
        pipe(reference, [make_pose(1), make_pose(2)], generator=seeded())
        assert touches.order == [*read, "pose_encoder", "unet", "vae"]
        if has_motion(pipe.unet):
            touches.order.clear()
            num_windows = sum(len(windows(8, 4, 2, step)) for step in range(2))
            assert num_windows == 7
            pipe(reference, [make_poses(8), make_poses(8, 50)], num_inference_steps=2, window=4, overlap=2)
            assert touches.order == ["pose_encoder", "unet"] * num_windows + ["vae"]
            touches.order.clear()
            pipe(reference, make_poses(4), num_inference_steps=2)
            assert touches.order == ["pose_encoder", "unet", "vae"]  # one window: drawn once for all steps
    assert touches.wrong == set()


def test_a_touch_outside_is_seen(pipe):
    with Touches(pipe) as touches:
        pipe.unet.conv_out.weight.dtype  # noqa: B018
        assert touches.wrong == set()
        pipe.unet.conv_out.weight.data[0].sum()
        pipe.vae.quant_conv.weight.sum()
    assert {name for name, _ in touches.wrong} == {"unet", "vae"}


# ---- model offload's order, stamps, and what is refused ----


def test_model_offload_sends_a_network_away_before_the_next_one_works():
    """While the network reads or paints, at most the VAE (it comes first and last) and the pose encoder
    stand beside it: the image encoder is away."""
    beside = []
    with second_device():
        pipe = make_pipeline(make_clip())
        pipe.enable_model_cpu_offload(device="cuda")

        def look(*_):
            parts = {n: m for n, m in pipe.components.items() if isinstance(m, torch.nn.Module)}
            beside.append({n for n, m in parts.items() if m.device.type == "cuda"})

        pipe.unet.conv_in.register_forward_pre_hook(look)
        reference = pipe.encode_reference(make_picture(0), make_pose(0))
        pipe(reference, make_pose(1), generator=seeded(), num_inference_steps=1)
        assert {m.device.type for m in (pipe.unet, pipe.vae, pipe.pose_encoder)} == {"cpu"}
    assert pipe.image_encoder is not None
    assert [networks - {"pose_encoder"} for networks in beside] == 2 * [{"vae", "unet"}]


def test_a_stamp_survives_moved_weights_and_sequential_offload():
    """Offloading moves weights between every two calls; hashing 860 M parameters each time would take
    seconds."""
    from scd import pipeline

    pipe, made = make_pipeline(), []
    original = pipeline.make_stamp

    def counted(*args):
        made.append(1)
        return original(*args)

    pipeline.make_stamp = counted
    try:
        stamp = pipe.stamp
        for p in pipe.unet.parameters():
            p.data = p.data.clone()  # what `.to(device)` does
        assert pipe.stamp == stamp
        assert len(made) == 1
        pipe.unet.to("meta")
        assert pipe.stamp == stamp
    finally:
        pipeline.make_stamp = original


def test_stamps_of_weights_that_are_away(tmp_path):
    """Sequential offload: the same stamp, and a LoRA's new scale is still noticed."""
    import accelerate

    pipe = make_pipeline()
    write_lora(tmp_path / "lora.safetensors", pipe, "diffusers")
    pipe.load_lora_weights(tmp_path / "lora.safetensors", adapter_name="style")
    before = pipe.stamp
    pipe.set_adapters("style", 0.5)
    half = pipe.stamp
    assert before["adapters"] != half["adapters"]
    for known in (True, False):
        other = make_pipeline()
        other.load_lora_weights(tmp_path / "lora.safetensors", adapter_name="style")
        if known:
            assert other.stamp == before
        for part in (other.unet, other.pose_encoder):
            accelerate.cpu_offload(part, torch.device("cpu"))
        assert other.unet.device.type == "meta"
        assert other.stamp == before
        other.set_adapters("style", 0.5)
        assert other.stamp == half


def test_offload_needs_an_accelerator_and_says_so(pipe):
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="accelerator"):
            pipe.enable_model_cpu_offload()
        with pytest.raises(RuntimeError, match="accelerator"):
            pipe.enable_sequential_cpu_offload()
    for device in ("cpu", "cpu:0"):
        with pytest.raises(RuntimeError, match="goes to an accelerator: weights are on the CPU already"):
            pipe.enable_sequential_cpu_offload(device=device)
    assert pipe.unet.device.type == "cpu"


def test_group_offload_to_disk_is_refused(pipe, tmp_path):
    """diffusers names files by the layer alone: `conv_in` of two components is one file, and what an earlier
    run left there is read as this one's."""
    with pytest.raises(ValueError, match=r"to disk would mix up weights.* leave out offload_to_disk_path"):
        pipe.enable_group_offload(CUDA, offload_type="leaf_level", offload_to_disk_path=str(tmp_path))
    assert not list(tmp_path.iterdir())
    pipe.stamp  # noqa: B018
    pipe.unet.enable_group_offload(
        torch.device("cpu"), offload_type="leaf_level", offload_to_disk_path=str(tmp_path)
    )
    with pytest.raises(ValueError, match="to disk would mix up weights"):
        pipe.encode_reference(make_picture(0), make_pose(0))
