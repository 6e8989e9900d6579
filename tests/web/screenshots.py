"""Screenshots of a running page: python tests/web/screenshots.py http://127.0.0.1:7860 docs/images.

The page should serve two versions with the labels stable and canary.
"""

import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import av
from playwright.sync_api import Browser, FloatRect, Page, expect, sync_playwright

from emotion_ai.video.script import CUT, ScriptedClip

Scheme = Literal["light", "dark"]

MAX_BYTES = 250_000
"""Of one screenshot."""

SCHEMES: tuple[Scheme, ...] = ("light", "dark")

expect.set_options(timeout=120_000)


def shoot(browser: Browser, url: str, out: Path, width: int, scheme: Scheme) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, device_scale_factor=1 if width > 500 else 2
    )
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(url)
    page.get_by_role("button", name="A group").first.click()
    expect(page.locator("#result .ea-card")).to_have_count(4)
    _save(page, width, out / f"web-read-{width}-{scheme}.jpg")
    if scheme == "light" and width > 500:
        page.get_by_role("button", name="Eileen Collins").first.click()
        expect(page.locator("#result .ea-card")).to_have_count(1)
        for option in ("Keypoint names", "Keypoint uncertainty"):
            before = page.locator("#result .ea-picture").get_attribute("src") or ""
            page.get_by_label(option).first.check()
            expect(page.locator("#result .ea-picture")).not_to_have_attribute("src", before)
        page.get_by_label("Activation map").check()
        expect(page.locator("#result .ea-map")).to_be_visible()
        _save(page, width, out / f"web-names-{width}-{scheme}.jpg")
        page.get_by_role("tab", name="Model").click()
        expect(page.locator("#facts")).to_contain_text("Parity passed")
        _save(page, width, out / f"web-model-{width}-{scheme}.jpg")
        page.get_by_role("tab", name="Compare").click()
        if (stable := page.get_by_label("A", exact=True)).count():
            stable.click()
            page.get_by_role("option", name="stable").click()
        page.get_by_role("button", name="Grace Hopper").last.click()
        expect(page.locator("#compared figure")).to_have_count(2)
        _save(page, width, out / f"web-compare-{width}-{scheme}.jpg")
    context.close()


def shoot_video(browser: Browser, url: str, out: Path, width: int, clip: Path) -> None:
    """The Video tab after a clip was read, at the moment of its third event."""
    context = browser.new_context(viewport={"width": width, "height": 900}, device_scale_factor=1 if width > 500 else 2)
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(url)
    page.get_by_role("tab", name="Video").click()
    page.get_by_label("Frames to read").click()
    page.get_by_role("option", name="5 a second").click()
    page.get_by_label("Video file").set_input_files(clip)
    found = page.locator("#video .ea-clip")
    expect(found).to_be_visible(timeout=600_000)  # milliseconds
    page.wait_for_function("document.querySelector('.ea-clip video').readyState >= 2")
    found.locator(".ea-events button").nth(2).click()
    page.wait_for_function("!document.querySelector('.ea-clip video').seeking")
    _save(page, width, out / f"web-video-{width}-light.jpg")
    context.close()


def write_clip(path: Path) -> Path:
    """The first 24 seconds of the scripted clip: two drawn people who cross."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for frame in ScriptedClip(fps=10, end=CUT):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.rgb, "rgb24")))
        container.mux(stream.encode(None))
    return path


def _save(page: Page, width: int, path: Path) -> None:
    """Saves the upper part of the page, compressed until it is small enough for the repository."""
    page.evaluate("window.scrollTo(0, 0); document.activeElement.blur()")
    page.mouse.move(0, 0)
    time.sleep(0.5)  # transitions
    height = min(page.evaluate("document.body.scrollHeight"), 1500 if width > 500 else 2000)
    clip: FloatRect = {"x": 0, "y": 0, "width": width, "height": height}
    for quality in range(90, 20, -10):
        content = page.screenshot(full_page=True, clip=clip, type="jpeg", quality=quality)
        if len(content) < MAX_BYTES:
            break
    path.write_bytes(content)
    print(path, len(content))


def main() -> None:
    url, out = sys.argv[1], Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        for width in (1280, 390):
            for scheme in SCHEMES:
                shoot(browser, url, out, width, scheme)
            with TemporaryDirectory() as folder:
                shoot_video(browser, url, out, width, write_clip(Path(folder) / "two-people.mp4"))
        browser.close()


if __name__ == "__main__":
    main()
