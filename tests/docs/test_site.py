"""The documentation site builds without warnings, has no broken links and loads nothing from other hosts."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).parents[2]
FETCHED = {"img": "src", "script": "src", "link": "href", "source": "src", "iframe": "src", "video": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, BeautifulSoup]:
    """The built pages."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-3000:]
    assert {line.split()[0] for line in result.stderr.splitlines()} == {"INFO"}, result.stderr
    return {page: BeautifulSoup(page.read_text(), "html.parser") for page in folder.rglob("*.html")}


def test_links_anchors_and_images_exist(site: dict[Path, BeautifulSoup]) -> None:
    anchors = {page: {tag["id"] for tag in soup.find_all(id=True)} for page, soup in site.items()}
    broken = []
    for page, soup in site.items():
        if page.name == "404.html":  # its links are absolute
            continue
        for tag in soup.find_all(["a", *FETCHED]):
            address = str(tag.get("href") or tag.get("src") or "")
            if not address or urlsplit(address).scheme:
                continue
            path, anchor = urldefrag(unquote(address))
            target = (page.parent / path).resolve() if path else page
            if not target.is_file() or (anchor and anchor not in anchors[target]):
                broken.append(f"{page.name}: {address}")
    assert not broken


def test_pages_load_nothing_from_other_hosts(site: dict[Path, BeautifulSoup]) -> None:
    def fetched(tag: Tag) -> str:
        if tag.name == "link" and "canonical" in str(tag.get("rel")):
            return ""
        return str(tag.get(FETCHED[tag.name], ""))

    addresses = {fetched(tag) for soup in site.values() for tag in soup.find_all(list(FETCHED))}
    assert addresses > {""}
    assert not [address for address in addresses if urlsplit(address).netloc]
    folder = min(site, key=lambda page: len(page.parts)).parent
    sheets = [sheet.read_text() for sheet in folder.rglob("*.css")]
    assert sheets
    assert not [sheet for sheet in sheets if "url(http" in sheet or "url(//" in sheet or "@import" in sheet]


def test_all_keys_and_commands_are_documented(site: dict[Path, BeautifulSoup]) -> None:
    texts = {page.name: soup.get_text() for page, soup in site.items()}
    for file in (ROOT / "conf").rglob("*.yaml"):
        if file.stem in ("ablations", "default") or file.parent.name in ("output", "task_model", "task_optimizer"):
            continue
        prefix = f"{file.parent.name}." if file.parent.name not in ("conf", "debug", "experiment") else ""
        keys = [key for key in yaml.safe_load(file.read_text()) if key not in ("defaults", "hydra")]
        missing = [key for key in keys if prefix + key not in texts["configuration.html"]]
        assert not missing, file
    from emotion_ai.cli import app

    for command in app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        assert f"emotion-ai {name}" in texts["command-line.html"]
