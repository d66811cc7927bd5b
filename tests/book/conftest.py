"""A browser with the network cut, the pages of the built book, and what hosted notebooks have."""

import shutil
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.book.environments import PUBLISHED, call, copy_checkout, prepared
from tests.programs import missing

SITE = Path(__file__).parents[2] / "_build" / "html"
NO_BOOK = f"no built book in {SITE}: call make book"
WIDE = {"width": 1280, "height": 900}
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def pages() -> list[Path]:
    """Every page for readers; not the library's highlighted source, nor redirects."""
    return [
        path
        for path in sorted(SITE.rglob("*.html"))
        if not {"_modules", "_static"} & set(path.relative_to(SITE).parts)
        and path != SITE / "index.html"
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `path` runs for every page of the built book."""
    if "path" in metafunc.fixturenames:
        metafunc.parametrize(
            "path",
            pages() or [None],  # without a book one test stands for all, and `opened` says so
            ids=lambda path: path.relative_to(SITE).as_posix() if path else "none",
            scope="session",  # all tests of one page run together, so that it is opened once
        )


@pytest.fixture(scope="session")
def browser():
    if not CHROMIUM:
        missing("no Chromium: install it (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


class Visit:
    """One window and the page in it, with what the browser complained about and whom it asked."""

    def __init__(self, browser, path, query="", **options):
        self.page = browser.new_page(**options)
        # Of what is never reached alone: a busy machine may take long.
        self.page.set_default_timeout(120_000)
        self.page.on("console", lambda m: m.type == "error" and self.errors.append(m.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.route("**/*", self._route)
        self.open(path, query)

    def open(self, path, query=""):
        """Open a page, in place of the one that is there: a new window costs more than a page."""
        self.errors, self.foreign, self.loaded = [], [], []
        self.page.goto(path.as_uri() + query)
        # MathJax sets the ready promise once everything on the page is typeset.
        self.page.wait_for_function("!window.MathJax || window.MathJax.startup?.promise")
        self.page.evaluate("window.MathJax?.startup?.promise")
        self.first_loaded = list(self.loaded)  # what a reader waits for, before any interaction

    def _route(self, route):
        url = route.request.url
        if url.startswith("file:"):
            self.loaded.append(url)
        if url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            self.foreign.append(url)
            route.abort()


@pytest.fixture(scope="session")
def opened(browser, path):
    """The page at `path`, opened once for all its tests: a touch screen and a keyboard."""
    if path is None:
        missing(NO_BOOK)
    visit = Visit(browser, path, has_touch=True, color_scheme="light", viewport=WIDE)
    yield visit
    visit.page.close()


@pytest.fixture
def page(opened):
    """The opened page, in light colours on a wide screen, whatever the last test left."""
    opened.page.set_viewport_size(WIDE)
    opened.page.emulate_media(color_scheme="light", reduced_motion="no-preference")
    return opened.page


@pytest.fixture
def visit(browser):
    """Open any file: ``visit(path)``, ``visit(path, query="?q=word")``."""
    return partial(Visit, browser)


@pytest.fixture
def site() -> Path:
    """Where the built book stands."""
    if not (SITE / "book.zip").exists():
        missing(NO_BOOK)
    return SITE


@pytest.fixture(scope="module")
def hosted():
    """Python with the hosted versions and without the course."""
    with prepared("hosted") as python:
        call(python, "-m", "pip", "uninstall", "-q", "-y", "course-lib")
        yield python


@pytest.fixture(scope="module")
def public_repository(tmp_path_factory):
    """A repository with the files of this checkout, as its owner publishes them at `PUBLISHED`."""
    target = tmp_path_factory.mktemp("public") / "course"
    copy_checkout(target)
    call(sys.executable, target / "tools" / "notebooks.py", "sync", PUBLISHED)
    identity = ("-c", "user.name=course", "-c", "user.email=course@localhost")
    call("git", "init", "-q", "-b", "main", cwd=target)
    call("git", "add", "-A", cwd=target)
    call("git", *identity, "commit", "-q", "-m", "The checkout", cwd=target)
    return target


@pytest.fixture(scope="module")
def hosted_with_course(hosted, public_repository):
    """Python with the hosted versions and the course, installed as a notebook's first cell does."""
    call(hosted, "-m", "pip", "install", "-q", f"git+file://{public_repository}")
    return hosted
