"""The page in a real browser, with a real server behind a proxy that can be stopped."""

import base64
import csv
import io
import itertools
import re
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect

from emotion_ai.class_set import SEVEN
from emotion_ai.vision.photo import PORTRAITS
from emotion_ai.web.examples import examples
from emotion_ai.web.session import ModelSession, detect
from emotion_ai_export.serving.launch import Addresses
from tests.web.conftest import SECONDS, OpenPage, Proxy, Site, start, stop

expect.set_options(timeout=SECONDS * 1000)


def result(page: Page, where: str = "result") -> Locator:
    return page.locator(f"#{where}")


def upload(page: Page, content: bytes | Path, name: str = "picture.png") -> None:
    file: Path | FilePayload = (
        content if isinstance(content, Path) else {"name": name, "mimeType": "image/png", "buffer": content}
    )
    page.locator("input[type=file]").first.set_input_files(file)


def downloaded(page: Page, name: str) -> bytes:
    with page.expect_download() as download:
        result(page).get_by_role("link", name=name).click()
    return Path(download.value.path()).read_bytes()


def pixels(content: bytes) -> NDArray[np.float32]:
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"), np.float32)


def no_face() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_an_upload_is_read_drawn_and_can_be_downloaded(page: Page) -> None:
    upload(page, PORTRAITS[0])
    card = result(page).locator(".ea-card")
    expect(card).to_have_count(1)
    expect(card.get_by_role("heading")).to_contain_text("Happy")
    expect(card.locator("li")).to_have_count(len(SEVEN))
    expect(result(page)).to_contain_text("version 2 responded in")
    (row,) = csv.DictReader(io.StringIO(downloaded(page, "Table (CSV)").decode()))
    assert row["emotion"] == "Happy"
    assert 180 < float(row["left_eye_center_x"]) < 280
    assert 0 < float(row["nose_tip_x_deviation"]) < 10
    plain = downloaded(page, "Picture (JPEG)")
    with Image.open(io.BytesIO(plain)) as picture:
        assert picture.size == (640, 640)

    pictures = [plain]
    for option in ("Keypoint names", "Keypoint uncertainty"):
        shown = result(page).locator(".ea-picture")
        before = shown.get_attribute("src") or ""
        page.get_by_label(option).first.check()
        expect(shown).not_to_have_attribute("src", before)
        pictures.append(downloaded(page, "Picture (JPEG)"))
    changed = [np.mean(np.abs(pixels(a) - pixels(b)).max(-1) > 64) for a, b in itertools.pairwise(pictures)]
    assert changed[0] > 0.01, "15 names are drawn"
    assert changed[1] > 0.0005, "15 ellipses are drawn"  # thin lines
    page.get_by_label("Activation map").check()
    expect(card.get_by_alt_text("Activation map for Happy")).to_be_visible()
    page.get_by_label("Version or label").first.click()
    page.get_by_role("option", name="stable (version 1)").click()
    expect(result(page)).to_contain_text("version 1 responded in")

    page.locator("input[type=number]").first.fill("0.99")
    page.locator("input[type=number]").first.press("Enter")
    expect(card.get_by_role("heading")).to_contain_text("uncertain")


def test_a_picture_is_pasted(open_page: OpenPage) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    with Image.open(PORTRAITS[1]) as portrait:
        portrait.resize((480, 480)).save(file := io.BytesIO(), "PNG")
    page.evaluate(
        """async text => {
            const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
            await navigator.clipboard.write([new ClipboardItem({"image/png": new Blob([bytes], {type: "image/png"})})]);
        }""",
        base64.b64encode(file.getvalue()).decode(),
    )
    page.get_by_label("Paste from clipboard").locator("visible=true").click()
    expect(result(page).locator(".ea-card")).to_have_count(1)


def test_several_faces_each_have_their_bars(page: Page) -> None:
    page.get_by_role("button", name="A group").first.click()
    expect(result(page).locator(".ea-card")).to_have_count(4)
    expect(result(page)).to_contain_text("4 faces detected in")


def test_pictures_that_cannot_be_read_are_explained(page: Page) -> None:
    upload(page, PORTRAITS[1])
    expect(result(page).locator(".ea-card")).to_have_count(1)
    upload(page, no_face())
    expect(result(page).get_by_role("alert")).to_contain_text("No face found")
    expect(page.get_by_text("add it again")).to_have_count(0)
    upload(page, b"\x89PNG\r\n\x1a\n broken")
    expect(result(page).get_by_role("alert")).to_contain_text("This picture cannot be read")
    upload(page, PORTRAITS[1].read_bytes()[:20_000], "half.jpg")
    expect(result(page).get_by_role("alert")).to_contain_text("damaged or truncated")
    upload(page, bytes(21 * 2**20), "large.png")
    expect(page.get_by_text("maximum allowed size")).to_be_visible()
    page.get_by_role("button", name="Eileen Collins").first.click()
    expect(result(page).locator(".ea-card")).to_have_count(1)


def test_it_recovers_when_the_server_is_back(page: Page, proxy: Proxy) -> None:
    proxy.stop()
    try:
        page.get_by_role("button", name="Eileen Collins").first.click()
        expect(result(page).get_by_role("alert")).to_contain_text("The server cannot be reached")
        expect(page.locator(".ea-status")).to_contain_text("The server cannot be reached")
    finally:
        proxy.start()
    expect(result(page).locator(".ea-card")).to_have_count(1)
    expect(page.locator(".ea-status")).to_contain_text("serves stable (version 1)")


def test_it_works_by_keyboard_alone(page: Page) -> None:
    names: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        words = "document.activeElement.getAttribute('aria-label') || document.activeElement.innerText || ''"
        names.append(page.evaluate(words).strip())
        if "Eileen Collins" in names[-1]:
            break
    assert "Read" in names[0], names
    assert any("upload" in name.lower() for name in names), names
    page.keyboard.press("Enter")
    expect(result(page).locator(".ea-card")).to_have_count(1)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, [role=tab], a')].filter(e => e.offsetParent && "
        "!(e.innerText || e.ariaLabel || e.title || e.labels?.length || e.getAttribute('aria-labelledby') || "
        "e.type == 'file')).map(e => e.outerHTML.slice(0, 200))"
    )
    assert unnamed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_it_does_not_scroll_sideways(open_page: OpenPage, scheme: str) -> None:
    page = open_page(390, color_scheme=scheme, has_touch=True, is_mobile=True, device_scale_factor=2)
    for tab in ("Model", "Compare", "Live", "Video", "Read"):
        target = page.get_by_role("tab", name=tab)
        target.click()
        expect(target).to_have_attribute("aria-selected", "true")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
    page.get_by_role("button", name="A group").first.click()
    expect(result(page).locator(".ea-card")).to_have_count(4)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ground = page.evaluate("getComputedStyle(document.querySelector('.ea-card')).backgroundColor")
    light = np.mean([float(part) for part in ground[ground.index("(") + 1 : -1].split(",")[:3]])
    assert light > 200 if scheme == "light" else light < 60


def test_the_webcam_is_read_live_and_as_a_still(page: Page, site: Site) -> None:
    before = set(site.folder.rglob("*"))  # uploads of other tests, deleted within half a minute
    page.get_by_role("tab", name="Live").click()
    page.get_by_text("Click to Access Webcam").locator("visible=true").click()
    page.get_by_title("start recording").locator("visible=true").click()
    frame = result(page, "live").locator(".ea-picture")
    expect(frame).to_have_attribute("alt", re.compile("#1 Happy"))
    lanes = page.get_by_label("The last 30 seconds")
    expect(lanes.locator(".ea-lane i").first).to_be_attached()
    expect(lanes).to_contain_text("Happy")
    bar = "[...document.querySelectorAll('#live .ea-lane i')].at(-1)"
    place = f"{bar}?.getBoundingClientRect()"
    full = f"{place}?.width > 0.95 * {bar}?.parentElement.clientWidth"  # of half a minute
    page.wait_for_function(f"start => {place}?.right > start + 2 || {full}", arg=page.evaluate(f"{place}.right"))
    expect(frame).to_have_attribute("alt", re.compile("#1 Happy"))
    expect(result(page, "live")).to_contain_text("ms per frame")
    assert set(site.folder.rglob("*")) <= before, "frames are not stored"
    page.get_by_title("stop recording").locator("visible=true").click(force=True)
    page.get_by_role("tab", name="Read").click()
    page.get_by_label("Capture from camera").locator("visible=true").click()
    page.get_by_text("Click to Access Webcam").locator("visible=true").click()
    page.get_by_title("capture photo").locator("visible=true").click()
    expect(result(page).locator(".ea-card")).to_have_count(1)
    expect(result(page).get_by_role("heading")).to_contain_text("Happy")


def test_the_model_tab_shows_card_and_parity(page: Page) -> None:
    page.get_by_role("tab", name="Model").click()
    expect(page.locator("#facts")).to_contain_text("Parity passed: 2 comparisons")
    expect(page.get_by_role("heading", name="Emotion: one of seven, from a face")).to_be_visible()


def test_two_versions_are_compared_on_one_picture(page: Page) -> None:
    page.get_by_role("tab", name="Compare").click()
    page.get_by_label("A", exact=True).click()
    page.get_by_role("option", name="stable (version 1)").click()
    page.get_by_role("button", name="Grace Hopper").last.click()
    expect(result(page, "compared").locator("figure")).to_have_count(2)
    expect(result(page, "compared")).to_contain_text("0.00 px")


def test_grpc_gives_what_http_gives(server: Addresses) -> None:
    detected = detect(examples()["A group"])
    readings = []
    for url in (server.rest, server.grpc):
        session = ModelSession(url)
        assert [name for name, _ in session.choices()][:3] == ["newest", "stable (version 1)", "canary (version 2)"]
        readings.append(session.read(detected, "stable"))
        session.close()
    assert readings[0].version == readings[1].version == 1
    for one, other in zip(readings[0].faces, readings[1].faces, strict=True):
        np.testing.assert_allclose(one.points, other.points, atol=1e-3)
        assert one.deviations is not None
        assert other.deviations is not None
        np.testing.assert_allclose(one.deviations, other.deviations, atol=1e-3)


def test_uploads_are_deleted_within_half_a_minute(site: Site) -> None:
    while time.time() < site.uploaded + 30 and site.upload.exists():  # the tests above have used most of this time
        time.sleep(0.5)
    assert not site.upload.exists()
    recent = time.time() - 30
    old = [file for file in site.folder.rglob("*") if file.is_file() and file.stat().st_mtime < recent]
    assert old == []


@pytest.mark.slow
def test_it_starts_and_stops_its_own_server(models: Path, browser: Browser) -> None:
    site = start(str(models))
    children = Path(f"/proc/{site.process.pid}/task/{site.process.pid}/children").read_text().split()
    assert len(children) == 1
    page = browser.new_page()
    page.goto(site.url)
    page.get_by_role("button", name="Eileen Collins").first.click()
    expect(result(page).locator(".ea-card")).to_have_count(1)
    page.close()
    stop(site)
    assert not Path(f"/proc/{children[0]}").exists()
    assert not site.folder.exists()
