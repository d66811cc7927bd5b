"""Opens every page of the built book in a real browser, with the network cut.

Needs `make book` and a Chromium; both are named where one is missing. Run by `make test`, which
builds the book first.
"""

import shutil
from pathlib import Path

import pytest

SITE = Path(__file__).parents[2] / "_build" / "html"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PAGES = sorted(path for path in (SITE / "book").rglob("*.html")) if SITE.exists() else []

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not CHROMIUM, reason="no Chromium: install it (Debian: apt-get install chromium)"
    ),
    pytest.mark.skipif(not PAGES, reason=f"no built book in {SITE}: call make book"),
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


class Visit:
    """One opened page, with what the browser complained about."""

    def __init__(self, browser, path, **options):
        self.page = browser.new_page(**options)
        self.errors, self.foreign = [], []
        self.page.on("console", lambda m: m.type == "error" and self.errors.append(m.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.route("**/*", self._route)
        self.page.goto(path.as_uri())
        # MathJax sets the ready promise once everything on the page is typeset.
        self.page.wait_for_function("!window.MathJax || window.MathJax.startup?.promise")
        self.page.evaluate("window.MathJax?.startup?.promise")

    def _route(self, route):
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            self.foreign.append(route.request.url)
            route.abort()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(SITE).as_posix())
def test_page_works_without_a_network(browser, path):
    visit = Visit(browser, path)
    page = visit.page
    assert not visit.foreign, "the page asks another host"
    assert not visit.errors
    formulas = page.locator("span.math, div.math").count()
    typeset = page.locator("span.math mjx-container, div.math mjx-container").count()
    assert typeset >= formulas, f"{formulas} formulas, {typeset} typeset"
    assert page.locator("mjx-merror, [data-mml-node=merror]").count() == 0
    broken = page.evaluate(
        "Array.from(document.images).filter(i => !i.naturalWidth && i.offsetParent).map(i => i.src)"
    )
    assert not broken
    texts = page.evaluate(
        "Array.from(document.querySelectorAll('article.bd-article img')).map(i => i.alt)"
    )
    for text in texts:
        assert len(text.split()) > 3, f"no alternative text but {text!r}"
        assert "/" not in text.split()[0], f"a path for an alternative text: {text!r}"
    page.close()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(SITE).as_posix())
def test_elements_of_the_page_move(browser, path):
    visit = Visit(browser, path)
    page = visit.page
    for slider in page.locator(".course-element input[type=range]").all():
        figure = slider.locator("xpath=ancestor::figure")
        before = figure.locator("img").get_attribute("src")
        slider.focus()
        page.keyboard.press("ArrowRight")
        assert figure.locator("img").get_attribute("src") != before
        assert slider.get_attribute("aria-valuetext") == figure.locator("output").inner_text()
    for plane in page.locator(".course-element canvas.plane").all():
        figure = plane.locator("xpath=ancestor::figure")
        image = figure.locator("canvas.image")
        picture = "canvas => canvas.toDataURL()"
        start = image.evaluate(picture)
        plane.scroll_into_view_if_needed()
        box = plane.bounding_box()
        page.mouse.move(box["x"] + 60, box["y"] + 90)
        page.mouse.down()
        page.mouse.move(box["x"] + 120, box["y"] + 90)
        page.mouse.up()
        dragged = image.evaluate(picture)
        assert dragged != start
        plane.focus()
        for _ in range(8):
            page.keyboard.press("ArrowUp")
        assert image.evaluate(picture) != dragged
    assert not visit.errors
    page.close()


def test_search_works_without_a_network(browser):
    visit = Visit(browser, SITE / "search.html")
    page = visit.page
    page.goto((SITE / "search.html").as_uri() + "?q=importance")
    page.wait_for_selector("#search-results li", timeout=10_000)
    assert page.locator("#search-results li").count() >= 1
    assert not visit.foreign
    page.close()
