"""The page as a reader meets it: in Chromium, wide and on a phone, light and dark.

Set TWOFOLD_SCREENSHOTS to a folder to keep the pictures.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report import examples
from tests.report.browser import Browser, browser
from twofold.report import write_report

pytestmark = pytest.mark.slow

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


def find_program() -> str:
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if found is None:
        reason = f"no Chromium: none of {', '.join(PROGRAMS)} is on the path"
        if os.environ.get("CI") == "true":
            pytest.fail(reason + "; install the package `chromium`")
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(find_program(), tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    paths = {name: folder / f"{name}.html" for name in examples.BY_NAME}
    for name, path in paths.items():
        write_report(examples.BY_NAME[name](), path)
    return paths


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("TWOFOLD_SCREENSHOTS")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def overflow_px(window: Browser, width: int) -> int:
    """A phone widens its view to what does not fit, so the view is compared as well."""
    needed = window.evaluate("Math.max(document.documentElement.scrollWidth, innerWidth)")
    assert isinstance(needed, int)
    return needed - width


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_fits_and_asks_for_nothing(
    window: Browser, pages: dict[str, Path], pictures: Path, width: int, dark: bool
) -> None:
    page = pages["whole"].as_uri()
    window.open(page, width=width, dark=dark)
    assert window.evaluate("innerWidth") == width
    assert overflow_px(window, width) <= 0
    window.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert overflow_px(window, width) <= 0
    window.evaluate("document.querySelectorAll('details').forEach(d => { d.open = false; })")
    picture = pictures / f"report-{width}-{'dark' if dark else 'light'}.png"
    window.screenshot(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 50_000
    assert window.requests == [page]
    assert window.complaints == []
    red = int(window.evaluate(BACKGROUND).split("(")[1].split(",")[0])
    assert (red < 60) is dark


@pytest.mark.parametrize("name", [name for name in examples.BY_NAME if name != "whole"])
def test_no_evidence_makes_a_phone_scroll_sideways(
    window: Browser, pages: dict[str, Path], name: str
) -> None:
    for width in (360, 700, 1280):
        window.open(pages[name].as_uri(), width=width, dark=False)
        window.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert overflow_px(window, width) <= 0, width
        assert window.requests == [pages[name].as_uri()]
        assert window.complaints == []


def test_text_in_figures_keeps_its_size_on_a_phone(window: Browser, pages: dict[str, Path]) -> None:
    for width in (360, 768, 769, 1280):
        window.open(pages["whole"].as_uri(), width=width, dark=False)
        smallest_px = window.evaluate(
            "Math.min(...[...document.querySelectorAll('figure svg[role=img] text')]"
            ".filter(t => t.ownerSVGElement.clientWidth).map(t =>"
            " parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.clientWidth"
            " / t.ownerSVGElement.viewBox.baseVal.width))"
        )
        assert 11 <= smallest_px < 20, width


def test_a_request_would_have_been_seen(window: Browser, tmp_path: Path) -> None:
    """The probe itself: a page that does ask for something is caught."""
    page = tmp_path / "asking.html"
    page.write_text(
        '<!doctype html><meta name="viewport" content="width=device-width">'
        '<img src="missing.png" width="2000" height="9">',
        encoding="utf-8",
    )
    for width in (360, 1280):
        window.open(page.as_uri(), width=width, dark=False)
        assert window.requests == [page.as_uri(), (tmp_path / "missing.png").as_uri()]
        assert overflow_px(window, width) > 0


def test_the_theme_can_be_turned_and_a_mark_tells_what_it_is(
    window: Browser, pages: dict[str, Path]
) -> None:
    window.open(pages["whole"].as_uri(), width=1280, dark=False)
    light = window.evaluate(BACKGROUND)
    window.evaluate("document.getElementById('theme').click()")
    assert window.evaluate(BACKGROUND) != light
    window.evaluate("document.getElementById('theme').click()")
    assert window.evaluate(BACKGROUND) == light
    window.evaluate(
        "document.querySelector('.on-page svg g > .mark').dispatchEvent("
        "new PointerEvent('pointermove', {bubbles: true, clientX: 50, clientY: 50}))"
    )
    assert "same-maths against naive, training" in window.evaluate(
        "document.getElementById('tip').textContent"
    )


def test_print_is_light_and_without_controls(window: Browser, pages: dict[str, Path]) -> None:
    window.open(pages["whole"].as_uri(), width=700, dark=True, media="print")
    assert window.evaluate(BACKGROUND) == "rgb(255, 255, 255)"
    hidden = window.evaluate("getComputedStyle(document.getElementById('theme')).display")
    assert hidden == "none"


def test_without_script_everything_is_still_there(window: Browser, pages: dict[str, Path]) -> None:
    window.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        window.open(pages["whole"].as_uri(), width=1280, dark=False)
        shown = window.evaluate("document.body.innerText")
        titles = window.evaluate("document.querySelectorAll('svg g > title').length")
    finally:
        window.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "How to repeat and to check" in shown
    assert "Light / dark" not in shown
    assert titles > 100
