"""The page's layout, and the application that serves it."""

import base64
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from emotion_ai.errors import ClientError, ConfigError, EmotionAIError
from emotion_ai.video.smoothing import Smoother
from emotion_ai.web import show
from emotion_ai.web.command import Served, versions
from emotion_ai.web.examples import examples, thumbnail
from emotion_ai.web.guard import MAX_BYTES, Guard
from emotion_ai.web.session import (
    NEWEST,
    Answer,
    DetectedFaces,
    ModelSession,
    differences,
    judged,
    look,
    maps_of,
    published,
    published_versions,
)

UPLOADED = 20  # seconds, after which an upload is deleted; looked for every quarter of it
REMEMBERED = 900  # seconds, after which a session's faces are forgotten
TICK = 4.0  # seconds between two looks whether the server is there
FRAME = 0.15  # seconds between two frames of the live webcam, at least
LIVE = 600  # seconds that a live webcam may take at a stretch

_EMPTY = show.hint("Upload a picture, paste one, take one with the webcam, or choose an example.")
_GONE = show.notice("Nothing is remembered of this picture", "Give it once more.")
_LIVE = show.hint("Start the webcam: its picture is read several times a second and smoothed from frame to frame.")
_PRIVATE: dict[str, Any] = {"api_visibility": "private"}


@dataclass(frozen=True)
class Reading:
    """What a session remembers of its picture; `answer` is None while the server has not answered."""

    sighting: DetectedFaces
    answer: Answer | None = None


def build(served: Served, asker: ModelSession, folder: Path) -> gr.Blocks:
    """The page; `folder` takes uploads for the moment."""
    numbers = published_versions(served.models) if served.models else []
    card = published(served.models, numbers[-1]) if served.models and numbers else None

    def state() -> tuple[str, list[tuple[str, str]] | None]:
        try:
            choices = asker.choices()
        except ClientError as problem:
            return f'<p class="ea-status">{escape(show.title(problem))}: {escape(str(problem))}</p>', None
        said = ", ".join(name for name, _ in choices[1:]) or "no version yet"
        return f'<p class="ea-status ea-up">{escape(served.url)} serves {escape(said)}</p>', choices

    def ask(sighting: DetectedFaces, choice: str, *options: Any) -> tuple[str, Reading]:
        try:
            reading = Reading(sighting, asker.ask(sighting, choice))
        except ClientError as problem:
            return show.error(problem), Reading(sighting)
        return redraw(reading, *options), reading

    def read(content: bytes | None, choice: str, *options: Any) -> tuple[Any, Any]:
        if content is None:  # cleared for an example, or by the cross, which says so itself
            return gr.skip(), gr.skip()
        try:
            sighting = look(content)
        except EmotionAIError as problem:
            return show.error(problem), None
        return ask(sighting, choice, *options)

    def again(reading: Reading | None, choice: str, *options: Any) -> tuple[Any, Any]:
        return ask(reading.sighting, choice, *options) if reading else (gr.skip(), gr.skip())

    def redraw(reading: Reading | None, threshold: float, names: bool, ellipses: bool, looked: bool) -> Any:
        if reading is None or reading.answer is None:
            return gr.skip()
        answer = Answer(judged(reading.answer.faces, threshold), reading.answer.version, reading.answer.seconds)
        words, maps = "", None
        if looked and served.models:
            try:
                maps = maps_of(served.models, reading.sighting, answer)
            except EmotionAIError as problem:
                words = show.notice("Where the network looked cannot be shown", str(problem))
        return words + show.result(reading.sighting, answer, names, ellipses, maps)

    def compare(sighting: DetectedFaces | None, first: str, second: str, names: bool) -> Any:
        if sighting is None:
            return gr.skip()
        try:
            one, other = asker.ask(sighting, first), asker.ask(sighting, second)
        except ClientError as problem:
            return show.error(problem)
        return show.comparison(sighting, one, other, differences(one, other), names)

    def compare_picture(content: bytes | None, *options: Any) -> tuple[Any, Any]:
        if content is None:
            return gr.skip(), gr.skip()
        try:
            sighting = look(content)
        except EmotionAIError as problem:
            return show.error(problem), None
        return compare(sighting, *options), sighting

    def follow(content: bytes | None, smoother: Smoother | None, choice: str, threshold: float) -> tuple[Any, Any]:
        smoother = smoother or Smoother()
        if content is None:
            return gr.skip(), smoother
        started = time.perf_counter()
        try:
            sighting = look(content)
            answer = asker.ask(sighting, choice)
            faces = smoother(judged(answer.faces, threshold), time.monotonic())
        except EmotionAIError as problem:
            return show.error(problem), smoother
        return show.frame(sighting, faces, answer.version, time.perf_counter() - started), smoother

    def tick(shown: str, reading: Reading | None, choice: str, *options: Any) -> tuple[Any, ...]:
        """The server's state; where it is back, what it has not answered is asked again."""
        words, choices = state()
        answered = (gr.skip(), gr.skip())
        if choices and reading and not reading.answer:
            answered = again(reading, choice, *options)
        if words == shown:
            return *[gr.skip()] * 6, *answered
        return words, words, *[gr.update(choices=choices) if choices else gr.skip()] * 4, *answered

    with gr.Blocks(title="Emotion AI", analytics_enabled=False, delete_cache=(UPLOADED // 4, UPLOADED)) as page:
        gr.HTML(
            '<header class="ea-head"><h1>Emotion AI</h1><p>A face goes in; its 15 keypoints and its emotion come out, '
            "read by a model that TensorFlow Serving serves.</p></header>"
        )
        words, choices = state()
        status, shown = gr.HTML(words), gr.State(words)
        with gr.Tabs():
            with gr.Tab("Read"):
                reading = gr.State(None, time_to_live=REMEMBERED)
                with gr.Row(equal_height=False, elem_classes="ea-desk"):
                    with gr.Column(scale=2, min_width=300):
                        with gr.Column():
                            picture = _picture("Picture")
                            buttons = _examples()
                        with gr.Column(elem_classes="ea-choices"):
                            choice = _choice("Version or label", choices)
                            names = gr.Checkbox(False, label="Names of the points")
                            ellipses = gr.Checkbox(False, label="Uncertainty of the points", info="meant to hold 95 %")
                            looked = gr.Checkbox(
                                False, label="Where the emotion network looked", visible=bool(served.models)
                            )
                            threshold = gr.Slider(
                                0, 0.99, card.uncertain_below if card else 0, step=0.01,
                                label="Call an emotion uncertain below",
                                info="Probability. " + ("The start is the model card's." if card else "0: never."),
                            )  # fmt: skip
                    with gr.Column(scale=3, min_width=300):
                        result = gr.HTML(_EMPTY, elem_id="result")
                options = [threshold, names, ellipses, looked]
                picture.change(read, [picture, choice, *options], [result, reading], **_PRIVATE)
                picture.clear(lambda: (_EMPTY, None), None, [result, reading], **_PRIVATE)
                for button, content in buttons:
                    button.click(lambda: None, None, picture, queue=False, **_PRIVATE).then(
                        _of(read, content), [choice, *options], [result, reading], **_PRIVATE
                    )
                choice.input(again, [reading, choice, *options], [result, reading], **_PRIVATE)
                for option in (names, ellipses, looked):
                    option.input(redraw, [reading, *options], result, **_PRIVATE)
                threshold.change(redraw, [reading, *options], result, trigger_mode="always_last", **_PRIVATE)
            with gr.Tab("Live"), gr.Row(equal_height=False):
                smoother = gr.State(None, time_to_live=REMEMBERED)
                with gr.Column(scale=2, min_width=300):
                    camera = _picture("Webcam", streaming=True)
                    live_choice = _choice("Version or label", choices)
                with gr.Column(scale=3, min_width=300):
                    live = gr.HTML(_LIVE, elem_id="live")
                camera.stream(
                    follow, [camera, smoother, live_choice, threshold], [live, smoother], show_progress="hidden",
                    stream_every=FRAME, time_limit=LIVE, concurrency_limit=4, **_PRIVATE,
                )  # fmt: skip
            with gr.Tab("Model"):
                if served.models and numbers:
                    version = gr.Dropdown([str(n) for n in reversed(numbers)], value=str(numbers[-1]), label="Version")
                    facts, text = gr.HTML(elem_id="facts"), gr.Markdown(elem_classes="ea-card-text")
                    models = served.models

                    def describe(number: str) -> tuple[str, str]:
                        entry = published(models, int(number))
                        return show.proof(entry, int(number)), entry.card or "*No model card lies beside it.*"

                    gr.on([page.load, version.input], describe, version, [facts, text], **_PRIVATE)
                else:
                    gr.HTML(
                        show.notice(
                            "Only the server's address is known",
                            "Model card, parity proof and metrics lie in the folder that was published into: start the "
                            "page with it as well, emotion-ai web MODELS --server URL.",
                        )
                    )
            with gr.Tab("Compare"):
                sighting = gr.State(None, time_to_live=REMEMBERED)
                with gr.Row(equal_height=False):
                    with gr.Column(scale=2, min_width=300):
                        other_picture = _picture("Picture to compare on")
                        other_buttons = _examples()
                        first, second = _choice("A", choices), _choice("B", choices)
                        other_names = gr.Checkbox(False, label="Names of the points")
                    with gr.Column(scale=3, min_width=300):
                        compared = gr.HTML(_EMPTY, elem_id="compared")
                both = [first, second, other_names]
                other_picture.change(compare_picture, [other_picture, *both], [compared, sighting], **_PRIVATE)
                other_picture.clear(lambda: (_EMPTY, None), None, [compared, sighting], **_PRIVATE)
                for button, content in other_buttons:
                    button.click(lambda: None, None, other_picture, queue=False, **_PRIVATE).then(
                        _of(compare_picture, content), both, [compared, sighting], **_PRIVATE
                    )
                for option in both:
                    option.input(compare, [sighting, *both], compared, **_PRIVATE)
        gr.HTML(_footer(served, folder))
        gr.Timer(TICK).tick(
            tick,
            [shown, reading, choice, *options],
            [status, shown, choice, live_choice, first, second, result, reading],
            show_progress="hidden",
            **_PRIVATE,
        )
    return page.queue(max_size=32, default_concurrency_limit=2)


def _picture(label: str, streaming: bool = False) -> Any:
    """An input whose handlers are given the file's bytes: decoding, and its errors, are ours."""
    image: Any = gr.Image(
        label=label,
        sources=["webcam"] if streaming else ["upload", "clipboard", "webcam"],
        streaming=streaming,
        type="filepath",
        height=320,
        buttons=[],
        webcam_options=gr.WebcamOptions(mirror=False, constraints={"video": {"width": {"ideal": 640}}}),
    )
    image.preprocess = _content
    return image


def _content(payload: Any) -> bytes | None:
    if payload is None:
        return None
    if payload.url and payload.url.startswith("data:"):
        return base64.b64decode(payload.url.partition(",")[2])
    try:
        return Path(payload.path).read_bytes()  # the guard has checked that it is an upload
    except OSError as error:
        raise gr.Error("This upload is deleted already: give the picture once more.") from error


def _examples() -> list[tuple[Any, bytes]]:
    with gr.Row(elem_classes="ea-examples"):
        return [
            (gr.Button(name, elem_classes=f"ea-example-{i}"), content)
            for i, (name, content) in enumerate(examples().items())
        ]


def _of(read: Callable[..., Any], content: bytes) -> Callable[..., Any]:
    return lambda *options: read(content, *options)


def _choice(label: str, choices: list[tuple[str, str]] | None) -> Any:
    return gr.Dropdown(choices or [("newest", NEWEST)], value=NEWEST, label=label, filterable=False)


def _footer(served: Served, folder: Path) -> str:
    place = "a private folder in this computer's memory" if folder.is_relative_to("/dev/shm") else "a private folder"
    made_of = " · ".join(f"{name} {number}" for name, number in versions().items())
    return (
        '<footer class="ea-foot"><p>Pictures are processed in memory and never stored. An upload lies in '
        f"{place} for less than {UPLOADED + UPLOADED // 4 + 5} seconds; a smaller and a gray copy are remembered for "
        f"this window only, {REMEMBERED // 60} minutes at most. Nothing is sent anywhere but to the model's server, "
        f"{escape(served.url)}.</p><p>{made_of}</p></footer>"
    )


def _style() -> str:
    """The style sheet, and the examples' thumbnails, which come with it so that nothing is written to show them."""
    pictures = "".join(
        f".ea-example-{i} {{ background-image: url({show.uri(thumbnail(content), 'image/jpeg')}) !important; }}"
        for i, content in enumerate(examples().values())
    )
    return (files("emotion_ai") / "web" / "style.css").read_text() + pictures


def _theme() -> Any:
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    return gr.themes.Default(
        primary_hue="sky", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "Consolas", "monospace"]
    )


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens; 0 takes a free port.

    Raises:
        ConfigError: it cannot.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (")[0]
        raise ConfigError(f"{host}, port {port}: {reason}; choose another --port or --host") from error
    with listener:
        yield listener


def application(served: Served, asker: ModelSession, folder: Path, host: str = "127.0.0.1") -> FastAPI:
    """The page as an ASGI application."""
    app = FastAPI(openapi_url=None)
    app = gr.mount_gradio_app(
        app,
        build(served, asker, folder),
        path="/",
        footer_links=[],
        run_history=False,  # Gradio would keep runs, pictures included, in the browser
        max_file_size=MAX_BYTES,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=_theme(),
        css=_style(),
    )
    if host in ("127.0.0.1", "localhost", "::1"):  # no other name may be made to lead here
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    app.add_middleware(Guard, folder=folder)
    return app


def run(served: Served, folder: Path, listener: socket.socket) -> None:
    """Serves the page on a socket until it is interrupted."""
    asker = ModelSession(served.url)
    try:
        config = uvicorn.Config(
            application(served, asker, folder, listener.getsockname()[0]),
            log_level="warning",
            timeout_graceful_shutdown=2,
            server_header=False,
        )
        uvicorn.Server(config).run([listener])
    finally:
        asker.close()
