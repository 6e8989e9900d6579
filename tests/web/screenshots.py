"""Pictures of a running page for the documentation: python tests/web/screenshots.py http://127.0.0.1:7860 FOLDER."""

import shutil
import sys
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

LIMIT = 250_000  # bytes of one picture
expect.set_options(timeout=120_000)


def shoot(browser: Browser, url: str, out: Path, width: int, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, device_scale_factor=1 if width > 500 else 2
    )
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(url)
    page.get_by_role("button", name="A group").first.click()
    expect(page.locator("#result .ea-card")).to_have_count(4)
    _save(page, out / f"web-read-{width}-{scheme}.jpg")
    if scheme == "light" and width > 500:
        page.get_by_role("button", name="Eileen Collins").first.click()
        expect(page.locator("#result .ea-card")).to_have_count(1)
        for option in ("Names of the points", "Uncertainty of the points"):
            before = page.locator("#result .ea-picture").get_attribute("src") or ""
            page.get_by_label(option).first.check()
            expect(page.locator("#result .ea-picture")).not_to_have_attribute("src", before)
        page.get_by_label("Where the emotion network looked").check()
        expect(page.locator("#result .ea-looked")).to_be_visible()
        _save(page, out / f"web-names-{width}-{scheme}.jpg")
        page.get_by_role("tab", name="Model").click()
        expect(page.locator("#facts")).to_contain_text("Proven")
        _save(page, out / f"web-model-{width}-{scheme}.jpg")
        page.get_by_role("tab", name="Compare").click()
        if (stable := page.get_by_label("A", exact=True)).count():
            stable.click()
            page.get_by_role("option", name="stable").click()
        page.get_by_role("button", name="Grace Hopper").last.click()
        expect(page.locator("#compared figure")).to_have_count(2)
        _save(page, out / f"web-compare-{width}-{scheme}.jpg")
    context.close()


def _save(page: Page, path: Path) -> None:
    """The page's upper part, so small that it may lie in the repository."""
    page.evaluate("window.scrollTo(0, 0); document.activeElement.blur()")
    page.mouse.move(0, 0)
    time.sleep(0.5)  # transitions
    size = page.viewport_size or {}
    height = min(page.evaluate("document.body.scrollHeight"), 1500 if size["width"] > 500 else 2000)
    clip = {"x": 0, "y": 0, "width": size["width"], "height": height}
    for quality in range(90, 20, -10):
        content = page.screenshot(full_page=True, clip=clip, type="jpeg", quality=quality)  # type: ignore[arg-type]
        if len(content) < LIMIT:
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
            for scheme in ("light", "dark"):
                shoot(browser, url, out, width, scheme)
        browser.close()


if __name__ == "__main__":
    main()
