"""The page in gradio: what is asked for on the left, progress and results on the right, and the files behind them."""

import asyncio
import importlib.resources
import traceback
from collections.abc import AsyncIterator, Sequence
from html import escape
from urllib.parse import urlsplit

import gradio as gr
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, PlainTextResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from vps_jax.app.fragments import failure, progress, results
from vps_jax.app.jobs import Job, Jobs, Stopped, Wanted
from vps_jax.datasets.classes import ClassTable
from vps_jax.media.image_files import IMAGE_SUFFIXES
from vps_jax.media.video_files import VIDEO_SUFFIXES
from vps_jax.types import UserError
from vps_jax.viz.overlay import Style

SECONDS_BETWEEN_LOOKS = 0.25
FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "sans-serif"]  # none from elsewhere
# whatever a page asks for elsewhere, it is not given; gradio's own scripts and styles stand in the page
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "frame-ancestors 'self'"
)


def site(jobs: Jobs, *, title: str, tasks: Sequence[str], classes: ClassTable, hosts: Sequence[str]) -> FastAPI:
    """The page and the files of its results.

    Args:
      jobs: does the work.
      title: what is run.
      tasks: those to choose from, the first of them chosen.
      classes: those to choose from.
      hosts: names under which the page may be asked for, `*` for any.
    """
    app = FastAPI(openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)

    @app.middleware("http")
    async def _neither_to_nor_from_elsewhere(request, call_next):
        origin = request.headers.get("origin")  # of the page that asks, where a browser says it
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            return PlainTextResponse("pages of others may not ask for this", 403)
        response = await call_next(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response

    @app.get("/results/{run}/{name:path}")
    def _result(run: str, name: str) -> FileResponse:
        """A file that a run has listed; no path is made of what is asked for."""
        file = jobs.file(run, name)
        if file is None or not file.is_file():
            raise HTTPException(404)
        return FileResponse(file)

    style = (importlib.resources.files("vps_jax.app") / "page.css").read_text()
    theme = gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=FONT, font_mono=["monospace"])
    return gr.mount_gradio_app(
        app, blocks(jobs, title, tasks, classes), path="/", allowed_paths=[], ssr_mode=False, footer_links=[],
        run_history=False, pwa=False, mcp_server=False, enable_monitoring=False, theme=theme, css=style,
    )  # fmt: skip


def blocks(jobs: Jobs, title: str, tasks: Sequence[str], classes: ClassTable) -> gr.Blocks:
    """What is seen, and what happens when it is used."""
    with gr.Blocks(title=f"vps-jax: {title}", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(f"<h1>Segment a video</h1><p class='quiet'>{escape(title)}</p>", elem_id="head")
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=1, min_width=300):
                files = gr.File(
                    label="Videos, images, zip of frames", file_count="multiple",
                    file_types=[*VIDEO_SUFFIXES, *IMAGE_SUFFIXES, ".zip"], elem_id="files", height=170,
                )  # fmt: skip
                chosen = gr.Radio(list(tasks), value=tasks[0], label="Task", elem_id="task")
                names = gr.Dropdown(
                    list(classes.names), multiselect=True, label="Classes in the overlay", info="None chosen: all",
                    elem_id="shown",
                )  # fmt: skip
                opacity = gr.Slider(0, 1, value=0.5, step=0.05, label="Opacity of the overlay", elem_id="opacity")
                legend = gr.Checkbox(label="Legend in the overlay", elem_id="legend")
                with gr.Row():
                    run = gr.Button("Segment", variant="primary", elem_id="run")
                    cancel = gr.Button("Cancel", interactive=False, elem_id="cancel")
            with gr.Column(scale=3, min_width=480):
                state = gr.HTML(elem_id="state")
                shown = gr.HTML("<p class='quiet'>Results are shown here.</p>", elem_id="results")
    quietly = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    does = Events(jobs)
    with page:
        files.upload(does.upload, files, None, **quietly)
        run.click(
            does.segment, [files, chosen, names, opacity, legend], [state, shown, run, cancel],
            concurrency_limit=None, show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        cancel.click(does.cancel, None, cancel, **quietly)
        page.unload(does.leave)
    return page


class Events:
    """What happens when the page is used. gradio gives `request`, whose `session_hash` tells an open page from others;
    it finds it by its annotation."""

    def __init__(self, jobs: Jobs):
        self._jobs = jobs

    def upload(self, paths: list[str] | None, request: gr.Request) -> None:
        """Files have come."""
        self._jobs.uploaded(request.session_hash, paths or ())

    def cancel(self, request: gr.Request) -> dict:
        """The run is not wanted any more."""
        self._jobs.stop(request.session_hash)
        return gr.update(interactive=False)

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self._jobs.leave(request.session_hash)

    async def segment(
        self, paths: list[str] | None, task: str, names: list[str], opacity: float, legend: bool, request: gr.Request
    ) -> AsyncIterator[tuple]:
        """Run, and say how far it is until it is over."""
        busy = gr.update(interactive=False), gr.update(interactive=True)
        jobs, wanted = self._jobs, Wanted(task, Style(opacity, True, legend, tuple(names) or None))
        try:
            job = jobs.start(request.session_hash, paths or (), wanted)
        except UserError as error:
            yield failure(str(error)), gr.skip(), *busy[::-1]
            return
        yield progress(job, jobs.before(job)), "", *busy
        while not job.future.done() and not job.stop.is_set():
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            yield progress(job, jobs.before(job)), gr.skip(), gr.skip(), gr.skip()
        yield *outcome(job), *busy[::-1]


def outcome(job: Job) -> tuple[str, str]:
    """What is said of a run that is over, and what is shown of it."""
    error = None if job.stop.is_set() else job.future.exception()
    if job.stop.is_set() or isinstance(error, Stopped):
        return "<p class='quiet' role='status'>Cancelled; nothing of it is kept.</p>", ""
    if error is None:
        return results(job.future.result())
    if not isinstance(error, UserError):
        traceback.print_exception(error)
        error = f"{type(error).__name__}: {error}; the terminal of `vps-jax app` says more"
    return failure(str(error)), ""
