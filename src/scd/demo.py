"""One page in the browser: a photo, a driving clip, a look at the poses, and the clip. Its buttons run what
`scd animate` runs. Gradio is imported here and nowhere else, and only when the page is made."""

from __future__ import annotations

import html
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scd import media, world
from scd.animate import Drive
from scd.cli import one_line
from scd.cli.clip import animate_clip
from scd.cli.models import load_pipeline, set_defaults
from scd.cli.options import Animate, Demo, ModelOptions
from scd.types import UserError

log = logging.getLogger("scd")
ADDRESS = "127.0.0.1"  # this computer only
STOPPED = "stopped"  # the line of a run that its button ended
# The people of examples/, drawn here, because an installed package has no such folder
PHOTO_SEED, DANCE_SEED = 43, 52
Report = Callable[[float, str], None]  # how much is done, 0..1, and of what


@dataclass
class Studio:
    """What the page's buttons do; knows nothing of the page. Results are files in `folder`."""

    pipe: Any
    options: ModelOptions  # the model as the command line asked for it
    folder: Path
    made: int = field(default=0, init=False)  # results so far: each has a name of its own
    stopped: threading.Event = field(default_factory=threading.Event, init=False)
    running: bool = field(default=False, init=False)
    # The model's own, for fields left empty: a button makes its numbers the pipeline's defaults
    defaults: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        config = self.pipe.config
        self.defaults = {"steps": config.default_steps, "guidance": config.default_guidance}

    def preview(self, settings: Mapping[str, Any], report: Report | None = None) -> tuple[Path, str]:
        """A clip of reference, driving skeleton and retargeted skeleton, and what there is to say."""
        out = self._name("preview.mp4")
        return out, self._run(replace(self._job(settings), preview_pose=out), report)

    def generate(self, settings: Mapping[str, Any], report: Report | None = None) -> tuple[Path, Path, str]:
        """The clip, the same beside reference, driver and pose, and what there is to say."""
        out, both = self._name("clip.mp4"), self._name("compare.mp4")
        try:
            return out, both, self._run(replace(self._job(settings), out=out, compare=both), report)
        finally:  # nobody will ask for this name again
            shutil.rmtree(out.with_name(out.name + ".work"), ignore_errors=True)

    def begin(self) -> None:
        """A button was pressed: what was stopped before is over. Its work may start later."""
        if not self.running:
            self.stopped.clear()

    def stop(self) -> None:
        """End what runs, or is about to, at its next step, as if it had been an error: nothing half-made
        stays."""
        self.stopped.set()

    def _job(self, settings: Mapping[str, Any]) -> Animate:
        """The page's fields as options of `scd animate`. Raises UserError."""
        for name, what in (("photo", "a photo of a person"), ("driving", "a driving clip")):
            if not settings[name]:
                raise UserError(f"give {what} first")
        told = {name: settings[name] for name in ("person", "face")}
        numbers = {name: _whole(name, settings[name]) for name in ("max_frames", "steps", "seed")}
        asked = {"steps": numbers["steps"], "guidance": settings["guidance"]}
        told_or_own = {name: self.defaults[name] if n is None else n for name, n in asked.items()}
        model = replace(self.options, seed=numbers["seed"], **told_or_own)
        return Animate(
            Path(settings["photo"]), (Path(settings["driving"]),), max_frames=numbers["max_frames"],
            model=model, **told,
        )  # fmt: skip

    def _run(self, job: Animate, report: Report | None) -> str:
        def load(options: ModelOptions) -> Any:
            set_defaults(self.pipe, options)
            return self.pipe

        @contextmanager
        def progress(label: str, total: int | None) -> Iterator[Callable[..., None]]:
            done = 0

            def advance(steps: int = 1, text: str = "") -> None:
                nonlocal done
                done += steps
                if self.stopped.is_set():
                    raise UserError(STOPPED)
                if report is not None:
                    report(done / total if total else 0.0, label)

            advance(0)
            yield advance

        # Uploads lie in long folders, which say nothing to who reads their names here
        inputs = [path for path in (job.reference, *job.poses) if path is not None]
        self.running = True
        try:
            with _notes() as notes:
                drive = animate_clip(job, load=load, progress=progress)
        except UserError as error:
            raise UserError(_with_names(str(error), inputs)) from error
        finally:
            self.running = False
            self.stopped.clear()
        return _with_names("\n".join([_match(drive), *notes]), inputs)

    def _name(self, kind: str) -> Path:
        self.made += 1
        return self.folder / f"{self.made:03d}-{kind}"


def _whole(name: str, value: float | None) -> int | None:
    if value is not None and value != int(value):
        raise UserError(f"{name.replace('_', ' ')}: a whole number, not {value:g}")
    return None if value is None else int(value)


def _with_names(text: str, paths: Sequence[Path]) -> str:
    for path in paths:
        text = text.replace(str(path), path.name)
    return text


def _match(drive: Drive) -> str:
    return f"driver and reference match {drive.alignment.score:.2f} of 1; {len(drive.driving)} frames"


@contextmanager
def _notes() -> Iterator[list[str]]:
    """Inside, the notes that the command line would print are collected, too."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        yield lines
    finally:
        log.removeHandler(handler)


def draw_example(folder: Path) -> tuple[Path, Path]:
    """A drawn person's picture, and three seconds of another one's dance."""
    photo, driving = folder / "example.png", folder / "example.mp4"
    image = world.Scene.from_seed(PHOTO_SEED).view(0, size=384).image
    media.write_image(photo, image, {"kind": "world", "seed": PHOTO_SEED})
    views = world.Scene.from_seed(DANCE_SEED).clip("dance", 45, 15, 256)
    media.write_clip(driving, (view.image for view in views), 15)
    return photo, driving


def build(studio: Studio) -> Any:
    """The page, a `gradio.Blocks`. UserError when gradio is missing."""
    gr = _gradio()
    config = studio.pipe.config
    photo, driving = draw_example(studio.folder)
    with gr.Blocks(title="scd", analytics_enabled=False) as page:
        gr.Markdown("# One photo, somebody else's dance\n" + _about(config))
        with gr.Row():
            with gr.Column(scale=2):
                with gr.Row():
                    fields = {
                        "photo": gr.Image(
                            str(photo), type="filepath", sources=["upload"], label="photo", height=280
                        ),
                        "driving": gr.Video(
                            str(driving), sources=["upload"], include_audio=True, label="driving clip",
                            height=280,
                        ),
                    }  # fmt: skip
                # The file as it was uploaded: what cannot be read is said by scd.media, in its own line
                fields["photo"].preprocess = lambda payload: payload and payload.path
                with gr.Row():
                    fields["max_frames"] = gr.Number(45, label="frames at most", min_width=80)
                    fields["person"] = gr.Textbox(
                        "largest", label="person", placeholder="largest, 1, 2 ...", min_width=80
                    )
                    faces = ["full", "eyes-mouth", "none"]
                    fields["face"] = gr.Dropdown(faces, value="full", label="driver's face", min_width=80)
                with gr.Row():
                    fields["steps"] = gr.Number(config.default_steps, label="steps", min_width=80)
                    fields["guidance"] = gr.Number(config.default_guidance, label="guidance", min_width=80)
                    fields["seed"] = gr.Number(studio.options.seed or 0, label="seed", min_width=80)
                with gr.Row():
                    preview = gr.Button("Preview the poses")
                    generate = gr.Button("Generate", variant="primary")
                    stop = gr.Button("Stop", variant="stop")
                notes = gr.Textbox(label="notes", interactive=False, lines=4)
            with gr.Column(scale=3):
                # Labels would lie over the pictures' own
                films = {"interactive": False, "show_label": False, "autoplay": True, "loop": True}
                gr.Markdown("Poses")
                poses = gr.Video(height=240, **films)
                gr.Markdown("Side by side")
                both = gr.Video(height=210, **films)
                gr.Markdown("The clip")
                result = gr.Video(height=260, **films)

        def previewed(given: dict, progress=gr.Progress()) -> list:  # noqa: B008
            return list(_shown(gr, studio.preview, given, fields, progress))

        def generated(given: dict, progress=gr.Progress()) -> list:  # noqa: B008
            return list(_shown(gr, studio.generate, given, fields, progress))

        # One thing at a time: both share the model and the processor
        together = {"concurrency_id": "studio", "concurrency_limit": 1}
        inputs = set(fields.values())
        for button in (preview, generate):  # before the queue: a Stop after this click counts
            button.click(studio.begin, queue=False)
        preview.click(previewed, inputs, [poses, notes], show_progress_on=poses, **together)
        generate.click(generated, inputs, [result, both, notes], show_progress_on=both, **together)
        stop.click(studio.stop, queue=False)  # beside the one that runs
    return page


def _shown(gr: Any, work: Callable[..., tuple], given: dict, fields: dict, progress: Any) -> Iterator[str]:
    """What a button shows: files' names and notes; an error that the user can mend is its one line."""
    settings = {name: given[part] for name, part in fields.items()}
    try:
        shown = work(settings, lambda share, label: progress(share, desc=label))
    except Exception as error:
        line = one_line(error)
        if line is None:
            raise
        title = "Stopped" if line == STOPPED else "Error"
        raise gr.Error(html.escape(line), duration=None, title=title, print_exception=False) from None
    return (str(part) for part in shown)


def _about(config: Any) -> str:
    if config.world_version is None:
        return f"This model paints as many pixels as {config.default_size} x {config.default_size} has."
    return (
        f"This model knows drawn people, at {config.default_size} pixels; for photographs start "
        "`scd demo --model` with one that was trained on them."
    )


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when the page is made
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"the demo page needs Gradio ({error}): run `pip install 'scd[demo]'`") from None
    return gradio


def demo(options: Demo) -> None:
    """Run the verb: serve the page until Ctrl-C. Raises UserError."""
    if not 1 <= options.port < 65536:
        raise UserError(f"--port {options.port}: choose 1024 to 65535")
    gr = _gradio()
    pipe = load_pipeline(options.model)
    with tempfile.TemporaryDirectory(prefix="scd-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")  # goes when the page does
        page = build(Studio(pipe, options.model, Path(folder)))
        # The default theme's fonts come from elsewhere
        theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        try:
            page.launch(
                server_name=ADDRESS, server_port=options.port, share=False, quiet=True, inbrowser=False,
                prevent_thread_lock=True, allowed_paths=[folder], theme=theme,
                footer_links=[], run_history=False, enable_monitoring=False, mcp_server=False, ssr_mode=False,
            )  # fmt: skip
        except OSError:
            raise UserError(f"--port {options.port}: is taken, or not free to use: choose another") from None
        print(f"http://{ADDRESS}:{options.port} (Ctrl-C ends it)", flush=True)
        try:
            page.block_thread()
        finally:
            page.close()
