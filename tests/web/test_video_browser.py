"""The Video tab in a real browser, with a real server."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from emotion_ai.vision.photo import PORTRAITS
from tests.web.conftest import OpenPage, Site

SECONDS, FPS = 3, 10
LONGEST = 120_000  # milliseconds until a video was read, on a busy machine


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portrait that moves for three seconds, and then nobody for half a second."""
    path = tmp_path_factory.mktemp("clip") / "smile.mp4"
    portrait = Image.open(PORTRAITS[0]).convert("RGB").resize((300, 300))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 480, 320, "yuv420p"
        for number in range(SECONDS * FPS + FPS // 2):
            frame = Image.new("RGB", (480, 320), (200, 205, 210))
            if number < SECONDS * FPS:
                frame.paste(portrait, (40 + number, 10))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), "rgb24")))
        container.mux(stream.encode(None))
    return path


def add(page: Page, path: Path) -> None:
    page.get_by_role("tab", name="Video").click()
    page.get_by_label("Video file").set_input_files(path)


def position(page: Page) -> float:
    return float(page.evaluate("document.querySelector('.ea-clip video').currentTime"))


@pytest.mark.timeout(400)
def test_a_video_is_read_scrubbed_and_downloaded(page: Page, clip: Path, site: Site) -> None:
    add(page, clip)
    found = page.locator("#video .ea-clip")
    expect(page.locator("#video .ea-progress")).to_be_visible()
    expect(found).to_be_visible(timeout=LONGEST)
    expect(found).to_contain_text("1 track")
    expect(found.locator(".ea-events tbody tr")).to_have_count(1)
    expect(found.locator(".ea-events tbody tr")).to_contain_text("Happy")
    page.wait_for_function("document.querySelector('.ea-clip video').readyState >= 2")
    scrub = page.get_by_label("Position in the video")
    area = scrub.bounding_box()
    assert area is not None
    page.mouse.click(area["x"] + area["width"] * 0.5, area["y"] + 8)
    page.wait_for_function("!document.querySelector('.ea-clip video').seeking")
    length = float(scrub.get_attribute("max") or 0)
    assert length == pytest.approx(SECONDS + 0.5, abs=0.3)
    assert position(page) == pytest.approx(length / 2, abs=0.2)
    expect(found.locator(".ea-timeline output")).not_to_have_text("0:00.0")
    before = position(page)
    scrub.press("ArrowRight")
    page.wait_for_function("before => document.querySelector('.ea-clip video').currentTime > before", arg=before)
    page.mouse.move(area["x"] + area["width"] * 0.5, area["y"] + 8)
    page.mouse.down()
    shown = found.locator(".ea-timeline output")
    for share in (0.6, 0.7, 0.8):  # dragged
        page.mouse.move(area["x"] + area["width"] * share, area["y"] + 8)
        page.wait_for_function(
            "wanted => Math.abs(document.querySelector('.ea-clip video').currentTime - wanted) < 0.2",
            arg=share * length,
        )
        expect(shown).to_have_text(re.compile(rf"0:0[{int(share * length - 0.2)}{int(share * length + 0.2)}]\.\d"))
    page.mouse.up()
    found.locator(".ea-events button").click()
    page.wait_for_function("!document.querySelector('.ea-clip video').seeking")
    assert position(page) < 1
    page.set_viewport_size({"width": 390, "height": 900})
    totals = found.locator(".ea-scroll:not(.ea-events)")
    assert totals.evaluate("e => e.scrollWidth <= e.clientWidth"), "shares wrap"
    with page.expect_download() as download:
        found.get_by_role("link", name="Faces (CSV)").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert len(rows) >= SECONDS * FPS
    assert {row["source"] for row in rows} == {"smile.mp4"}, "the private folder is not shown"
    assert {row["track"] for row in rows} == {"1", ""}
    (folder,) = site.folder.glob("video-*")
    assert not list(folder.glob("*.mp4")), "the upload is deleted"
    page.reload()  # closes the window
    expect(page.get_by_role("tab", name="Video")).to_be_visible()
    for _ in range(100):
        if not folder.exists():
            break
        page.wait_for_timeout(100)
    assert not folder.exists(), "results are deleted with their window"


@pytest.mark.timeout(400)
def test_on_a_phone_what_cannot_be_read_is_explained(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(390, has_touch=True, is_mobile=True, device_scale_factor=2)
    text = tmp_path / "notes.mp4"
    text.write_text("no video\n" * 100)
    add(page, text)
    notice = page.locator("#video").get_by_role("alert")
    expect(notice).to_contain_text("notes.mp4", timeout=LONGEST)
    assert "/" not in notice.inner_text(), "no path of the page's computer is shown"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    large = tmp_path / "large.mp4"
    with large.open("wb") as file:
        file.truncate(101 * 2**20)
    page.get_by_label("Video file").set_input_files(large)
    expect(page.locator(".ea-drop")).to_contain_text("too large")


def test_the_law_is_stated_where_faces_of_others_are_read(page: Page) -> None:
    for tab in ("Video", "Live"):
        page.get_by_role("tab", name=tab).click()
        link = page.get_by_role("link", name="Regulation (EU) 2024/1689").locator("visible=true")
        expect(link).to_have_attribute("rel", "noopener noreferrer")
        expect(link).to_have_attribute("href", "https://eur-lex.europa.eu/eli/reg/2024/1689/oj")
