"""Figures of the theory pages: each is drawn by code, shown once, said in words, and whole."""

import re
from collections import Counter
from types import SimpleNamespace

import drawn_figures
import matplotlib.pyplot as plt
import pytest
from drawn_figures import ROOT, chapters, drawings, load

from course_lib.plotting import use_style

FIGURE = re.compile(r"^```\{figure\} (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLAIN = (
    "What you will be able to do",
    "Summary",
    "Common mistakes",
    "Exercises",
    "Further reading",
)
THEORY = sorted(path for path in ROOT.glob("book/*/*.md") if "$$" in path.read_text("utf-8"))
DRAWN = [
    pytest.param(function, id=f"{path.parent.name}/{name}")
    for path in chapters()
    for name, function in drawings(load(path)).items()
]


@pytest.fixture
def style():
    with plt.rc_context():
        use_style()
        yield
    plt.close("all")


@pytest.mark.parametrize("function", DRAWN)
def test_a_figure_is_whole_and_its_words_can_be_read(function, style):
    figure = function()
    assert isinstance(figure, plt.Figure)
    assert function.__doc__, "a sentence says what is drawn"
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    for text in figure.findobj(plt.Text):
        if text.get_visible() and text.get_text().strip():
            # On a page, where it is about 7.5 inches wide: at least 9 points.
            assert text.get_fontsize() * 7.5 / max(6.4, figure.get_figwidth()) >= 9, text
            box = text.get_window_extent(renderer)
            assert min(box.width, box.height) > 0
    assert any(axes.has_data() or axes.texts or axes.patches for axes in figure.axes)
    assert len(plt.get_fignums()) <= 1, "it leaves other figures open"


def shown():
    """Figures on pages: (page, target, what stands in the directive)."""
    for page in sorted(ROOT.glob("book/**/*.md")):
        for target, body in FIGURE.findall(page.read_text(encoding="utf-8")):
            yield page, target, body


def test_every_drawn_figure_is_shown_once_and_every_shown_one_is_drawn():
    names = Counter(target for _, target, _ in shown() if "/figures/" in target)
    drawn = {
        f"/_build/figures/{path.parent.name}/{name}.svg"
        for path in chapters()
        for name in drawings(load(path))
    }
    assert set(names) == drawn
    assert all(count == 1 for count in names.values()), names


def test_names_are_known_before_anything_is_drawn():
    for path in chapters():
        assert drawn_figures.names(path) == set(drawings(load(path)))


@pytest.mark.parametrize(
    ("page", "target", "body"),
    [
        pytest.param(*figure, id=f"{figure[0].stem}-{figure[1].split('/')[-1]}")
        for figure in shown()
    ],
)
def test_a_figure_is_said_in_words(page, target, body):
    options = dict(re.findall(r"^:(\w+): (.+)$", body, re.MULTILINE))
    caption = re.sub(r"^:\w+:.*$", "", body, flags=re.MULTILINE).strip()
    assert len(options["alt"].split()) > 5, "the alternative text says what is drawn"
    assert len(caption.split()) > 5, "the caption says what to see"
    assert options["alt"].strip() != caption
    assert "width" in options, "else a browser cannot keep its place before it has come"


@pytest.mark.parametrize("page", THEORY, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_each_section_of_a_theory_page_has_something_to_see(page):
    _, *sections = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    bare = []
    for section in sections:
        title, _, text = section.partition("\n")
        if title not in PLAIN and not title.endswith("notebooks"):
            seen = "```{figure}" in text or "```{results" in text
            bare += [] if seen else [title]
    assert not bare


def test_a_chapter_is_drawn_again_when_it_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(drawn_figures, "FOLDER", tmp_path / "figures")
    chapter = tmp_path / "chapter" / "figures.py"
    chapter.parent.mkdir()
    source = (
        "import matplotlib.pyplot as plt\n\n\ndef a_line():\n"
        "    plt.plot([0, {end}])\n    return plt.gcf()\n"
    )
    chapter.write_text(source.format(end=1))
    drawn = tmp_path / "figures" / "chapter" / "a-line.svg"
    assert drawn_figures.draw(chapter) == 1
    first = drawn.read_bytes()
    assert drawn_figures.draw(chapter) == 0
    chapter.write_text(source.format(end=2))
    assert drawn_figures.draw(chapter) == 1
    assert drawn.read_bytes() != first
    chapter.write_text(source.format(end=1))
    drawn_figures.draw(chapter)
    assert drawn.read_bytes() == first, "the same figure is the same file"
    chapter.write_text(source.format(end=1).replace("a_line", "another_line"))
    drawn_figures.draw(chapter)
    assert not drawn.exists(), "what is drawn no more is removed"


@pytest.mark.slow
def test_the_first_figures_are_drawn_while_pages_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(drawn_figures, "FOLDER", tmp_path / "figures")
    chapter = tmp_path / "chapter" / "figures.py"
    monkeypatch.setattr(drawn_figures, "chapters", lambda: [chapter])
    chapter.parent.mkdir()
    source = (
        "import matplotlib.pyplot as plt\n\n\ndef a_line():\n"
        "    plt.plot([0, 1])\n    return plt.gcf()\n"
    )
    chapter.write_text(source)
    drawn, app = tmp_path / "figures" / "chapter" / "a-line.svg", SimpleNamespace()
    drawn_figures.draw_all(app)
    assert drawn.exists(), "a page that is read now would not find it"
    assert drawn_figures.finish(app, env=object()) == []
    assert "<path" in drawn.read_text(encoding="utf-8")
    # Else the next build would read its page again.
    assert drawn.stat().st_mtime <= app.figures_begun
    assert drawn_figures.finish(app, env=object()) == [], "nothing is left"
    # Later the pages wait, and what is wrong stops the build.
    chapter.write_text(source.replace("[0, 1]", "[0, missing]"))
    with pytest.raises(NameError, match="missing"):
        drawn_figures.draw_all(app)
