"""The decks hold what the pages hold: every statement, equation, figure and question once, and each fits."""

import json
import re

import pytest
import slides
from bs4 import BeautifulSoup

from tests.book.conftest import SITE
from tests.programs import missing

pytestmark = pytest.mark.browser
CHAPTERS = slides.chapters(slides.ROOT / "_toc.yml")


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    """The folder of all decks."""
    if not (SITE / "book.zip").exists():
        missing(f"no built book in {SITE}: call make book")
    target = tmp_path_factory.mktemp("slides")
    slides.build(SITE, target)
    return target


def shown_pages(chapter):
    """The chapter's theory pages, without the sections that are for reading alone."""
    for page in CHAPTERS[chapter]:
        if (slides.ROOT / f"{page}.ipynb").exists():
            continue
        soup = BeautifulSoup((SITE / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
        for section in soup.select("article.bd-article > section > section"):
            name = section.find("h2").get_text().strip("#").strip().lower()
            if name in slides.LEFT_OUT or "notebook" in name:
                section.decompose()
        yield soup.select_one("article.bd-article")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_nothing_of_the_chapter_is_missing_and_nothing_is_twice(decks, chapter):
    deck = BeautifulSoup((decks / f"{chapter}.html").read_text(encoding="utf-8"), "html.parser")
    wanted = {"equations": [], "figures": [], "questions": [], "statements": []}
    for page in shown_pages(chapter):
        wanted["equations"] += [number.get_text()[:-1] for number in page.select(".eqno")]
        wanted["figures"] += [
            image["src"].rsplit("/", 1)[1]
            for image in page.select("figure:not(.course-element) img")
        ]
        wanted["questions"] += [one["id"] for one in page.select(".self-check")]
        wanted["statements"] += [
            one.select_one(".admonition-title").get_text()
            for one in page.select("div.proof")
            if slides.kind_of(one)
        ]
    found = {
        "equations": [number.get_text() for number in deck.select(".eqno")],
        "figures": [
            image["src"].rsplit("/", 1)[1]
            for image in deck.select("figure:not(.course-element) img")
        ],
        "questions": [one["id"] for one in deck.select(".self-check")],
        "statements": [one.get_text() for one in deck.select(".box.statement > .admonition-title")],
    }
    for what, names in wanted.items():
        # Numbers of equations that the notes repeat, in proofs, stand beside those on the slides.
        assert sorted(set(found[what])) == sorted(set(names)), what
        if what != "equations":
            assert len(found[what]) == len(names), what
    answers = {
        name
        for one in deck.select(".self-check-answers > .answer")
        for name in one["class"]
        if name.startswith("of-")
    }
    assert answers == {f"of-{name.removeprefix('check-')}" for name in wanted["questions"]}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_slide_fits_and_works_without_a_network(decks, visit, chapter):
    opened = visit(decks / f"{chapter}.html", viewport={"width": 1280, "height": 720})
    page = opened.page
    page.wait_for_selector("html[data-ready=yes]", timeout=60_000)
    assert page.locator("mjx-merror, [data-mml-node=merror]").count() == 0
    found = page.evaluate(
        """() => Array.from({length: Reveal.getTotalSlides()}, (_, index) => {
          Reveal.slide(index);
          const slide = Reveal.getCurrentSlide();
          return {kind: slide.dataset.kind, title: slide.querySelector("h1, h2")?.innerText,
                  high: slide.offsetHeight, wide: slide.scrollWidth - slide.clientWidth,
                  scrolls: slide.style.overflowY == "auto"};
        })"""
    )
    for number, slide in enumerate(found, 1):
        assert slide["title"], number
        assert slide["high"] <= 701, (number, slide)
        assert slide["wide"] <= 1, (number, slide)
        # A table of results may be longer than any slide; it scrolls, by keys too.
        assert not slide["scrolls"] or slide["kind"] == "table", (number, slide)
    assert not opened.errors
    assert not opened.foreign
    page.close()


def test_a_question_on_a_slide_is_judged(decks, visit):
    opened = visit(decks / "foundations.html", viewport={"width": 1280, "height": 720})
    page = opened.page
    page.wait_for_selector("html[data-ready=yes]", timeout=60_000)
    box = page.locator("#check-kl-of-coins")
    page.evaluate(
        """box => Reveal.slide(Reveal.getSlides().indexOf(box.closest("section")))""",
        box.element_handle(),
    )
    answer = json.loads(box.get_attribute("data-values"))["answer"]
    for text, verdict in ((f"{-answer:.6f}", "Not right."), (f"{answer:.6f}", "Right.")):
        box.locator("input").fill(text)
        box.locator("input").press("Enter")
        assert box.locator(".verdict").inner_text().startswith(verdict)
    # Arrow keys in the field move the cursor, not the slides.
    before = page.evaluate("Reveal.getIndices().h")
    box.locator("input").press("ArrowRight")
    assert page.evaluate("Reveal.getIndices().h") == before
    page.close()


def test_notes_hold_the_proofs(decks):
    deck = (decks / "foundations.html").read_text(encoding="utf-8")
    notes = " ".join(re.findall(r'<aside class="notes">(.*?)</aside>', deck, re.DOTALL))
    assert "Jensen" in notes
    assert notes.count("Step 1") >= 5


def test_without_a_book_the_message_names_the_fix(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["slides.py", str(tmp_path), str(tmp_path / "out")])
    assert slides.main() == 1
    assert "make book" in capsys.readouterr().err


def test_no_folder_is_lost_but_one_of_slides(tmp_path):
    site, talks = tmp_path / "_build" / "html", tmp_path / "talks"
    (site / "book").mkdir(parents=True)
    talks.mkdir()
    (talks / "thesis.odp").write_text("years of work", encoding="utf-8")
    (tmp_path / "a-file").touch()
    for target in (talks, tmp_path, site, site.parent, tmp_path / "a-file"):
        with pytest.raises(FileExistsError, match="name another folder"):
            slides.build(site, target)
    assert (talks / "thesis.odp").read_text(encoding="utf-8") == "years of work"


@pytest.mark.parametrize("page", [None, "<title>another book</title>"])
def test_slides_stay_until_there_are_others(tmp_path, capsys, monkeypatch, page):
    site, target = tmp_path / "html", tmp_path / "slides"
    for path in CHAPTERS["foundations"]:
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        if page is not None:
            (site / f"{path}.html").write_text(page, encoding="utf-8")
    (target / "_reveal").mkdir(parents=True)
    (target / "slides.js").touch()
    monkeypatch.setattr("sys.argv", ["slides.py", str(site), str(target)])
    assert slides.main() == 1
    assert "make book" in capsys.readouterr().err
    assert (target / "slides.js").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["html", "slides"]


def test_slides_are_replaced_as_a_whole(decks):
    (decks / "left-over.html").touch()
    assert len(slides.build(SITE, decks)) == len(CHAPTERS)
    assert not (decks / "left-over.html").exists()
    assert (decks / "index.html").exists()
