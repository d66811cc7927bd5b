"""Makes one deck of slides for each chapter from its built pages.

    python tools/slides.py [SITE] [TARGET]

Nothing is written for the slides. A statement, a labelled equation, a figure, a table, a common slip, a
question and a live element of the pages becomes a slide each, in the order of the book; the text between
them becomes the speaker's notes of the slide that it leads to, proofs included. A new statement on a page
is a new slide in the next build.

The decks work from a folder without a network: reveal.js comes from the package sphinx-revealjs, and
formulas are typeset by the site's own MathJax. Press S for the notes, O for an overview, and print
``?print-pdf``. ``slides.css`` and ``slides.js``, beside this file, are theirs alone.
"""

import argparse
import html
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).parents[1]
# Sections that are for reading, not for showing.
LEFT_OUT = {"exercises", "further reading", "summary"}
SHORT = 260  # characters of a paragraph that leads to an equation and is shown above it


@dataclass
class Slide:
    """One slide.

    Attributes:
        title: the heading.
        body: the parts of it.
        notes: what the speaker sees beside it.
        kind: what it shows: ``"title"``, ``"statement"``, ``"equation"``, ``"figure"``, ….
    """

    title: str
    kind: str
    body: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def chapters(toc: Path) -> dict[str, list[str]]:
    """The pages of each chapter, by its folder, in the order of the table of contents."""
    found: dict[str, list[str]] = {}
    for part in yaml.safe_load(toc.read_text(encoding="utf-8"))["parts"]:
        for chapter in part["chapters"]:
            pages = [chapter["file"], *(section["file"] for section in chapter.get("sections", ()))]
            folder = Path(pages[0]).parent
            if Path(pages[0]).name == "theory":
                found[folder.name] = pages
    return found


def kind_of(node: Tag) -> str | None:
    """What a block of a page becomes on a slide; None for text."""
    classes = set(node.get("class", ()))
    if "self-check" in classes:
        return "question"
    if "proof" in classes:
        return "statement" if len(classes - {"proof", "admonition"}) else None
    if "admonition" in classes:
        return "slip" if "slip" in node.get_text()[:60].lower() else None
    if "math" in classes and str(node.get("id", "")).startswith("equation-eq-"):
        return "equation"
    if node.name == "figure":
        return "figure"
    if node.name == "table" or "pst-scrollable-table-container" in classes:
        return "table"
    return None


def without_links(node: Tag) -> Tag:
    """The node, in place: links within the book are text, and marks and anchors are gone."""
    for mark in node.select("a.headerlink, .tested-equation"):
        mark.decompose()
    for link in node.select("a[href]"):
        if not link["href"].startswith(("http:", "https:")):
            link.unwrap()
    for part in node.find_all("section"):
        part.name = "div"  # a section within a section would be a slide of its own
    for place in node.select("[id]"):
        # A deck has several pages in it; what a script needs keeps its name.
        if not place.find_parent(class_=["course-element", "self-check"]):
            del place["id"]
    return node


def blocks(section: Tag, title: str) -> Iterator[tuple[str, str | None, Tag]]:
    """What stands in a section: its nearest heading, what it becomes, and the node."""
    for node in section.find_all(recursive=False):
        if node.name == "section":
            heading = node.find(["h3", "h4"])
            yield from blocks(node, heading_text(heading) if heading else title)
        elif node.name not in ("h1", "h2", "h3", "h4", "span", "script"):
            yield title, kind_of(node), node


def heading_text(heading: Tag) -> str:
    """The HTML of a heading without its number and its link."""
    for extra in heading.select("a.headerlink, .section-number"):
        extra.decompose()
    return heading.decode_contents().strip()


def of_section(section: Tag, title: str) -> list[Slide]:
    """The slides of a second-level section."""
    slides: list[Slide] = []
    waiting: list[Tag] = []  # text that leads to the next slide
    for heading, kind, node in blocks(section, title):
        if "tested-equation" in node.get("class", ()):
            continue
        if kind is None:
            waiting.append(node)
            continue
        text = [without_links(one) for one in waiting]
        if kind == "equation" and slides and slides[-1].kind == "equation" and not text:
            slides[-1].body.append(str(without_links(node)))
            continue
        slide = Slide(heading, kind)
        lead = text[-1] if text and text[-1].name == "p" else None
        if kind == "equation" and lead is not None and len(lead.get_text()) <= SHORT:
            slide.body.append(str(lead))
        slide.notes += [str(one) for one in text]
        shown = without_links(node)
        if kind in ("statement", "slip"):
            slide.body.append(f'<div class="box {kind}">{shown.decode_contents()}</div>')
        else:
            slide.body.append(str(shown))
        slides.append(slide)
        waiting = []
    if waiting:
        if not slides:
            slides.append(Slide(title, "text"))
        slides[-1].notes += [str(without_links(one)) for one in waiting]
    return slides


def of_page(soup: BeautifulSoup) -> list[Slide]:
    """The slides of a theory page."""
    article = soup.select_one("article.bd-article > section")
    title = heading_text(article.find("h1"))
    slides = [Slide(title, "title", [f"<h1>{title}</h1>"])]
    opening = article.find("figure", recursive=False)
    if opening is not None:
        slides[0].body.append(str(without_links(opening)))
    for section in article.find_all("section", recursive=False):
        name = heading_text(section.find("h2"))
        if name.lower() in LEFT_OUT or "notebook" in name.lower():
            continue
        if name.lower() in ("what you will be able to do", "common mistakes"):
            listed = section.find(["ul", "ol", "table"])
            slides.append(Slide(name, "list", [str(without_links(listed))] if listed else []))
            continue
        slides += of_section(section, name)
    return slides


def elements_of(soup: BeautifulSoup, page: str) -> list[Slide]:
    """A slide for each live element of a notebook's page."""
    article = soup.select_one("article.bd-article > section")
    title = heading_text(article.find("h1"))
    slides = []
    for element in article.select(".course-element"):
        # Names count from 1 in each notebook; a deck has several of them.
        element["id"] = f"{page}-{element['id']}"
        slides.append(Slide(title, "element", [str(element)]))
    return slides


def deck(folder: str, pages: list[str], site: Path) -> tuple[str, set[str]]:
    """One chapter's deck.

    Args:
        folder: the chapter's folder.
        pages: its pages, without suffix, relative to the site.
        site: the built book.

    Returns:
        The HTML, and the names of the images that it shows.
    """
    slides: list[Slide] = []
    answers: list[str] = []
    for page in pages:
        soup = BeautifulSoup((site / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
        answers += [str(without_links(one)) for one in soup.select(".self-check-answers > .answer")]
        is_notebook = (ROOT / f"{page}.ipynb").exists()
        slides += elements_of(soup, Path(page).name) if is_notebook else of_page(soup)
        if page == pages[0]:
            chapter = soup.title.get_text().split("—")[0].strip()
            mathjax = next(s for s in soup.find_all("script") if "window.MathJax" in s.get_text())
    parts = [
        f'<section data-kind="{slide.kind}">\n'
        + (f"<h2>{slide.title}</h2>\n" if slide.kind != "title" else "")
        + "\n".join(slide.body)
        + (f'\n<aside class="notes">{"".join(slide.notes)}</aside>' if slide.notes else "")
        + "\n</section>"
        for slide in slides
    ]
    text = "\n".join(parts)
    images: set[str] = set()

    def local(match: re.Match) -> str:
        images.add(unquote(match[1]))
        return f'src="_images/{match[1]}"'

    text = re.sub(r'src="(?:\.\./)+_images/([^"]+)"', local, text)
    text = text.replace('loading="lazy" ', "")
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{html.escape(chapter)} – slides</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="_reveal/reset.css">
<link rel="stylesheet" href="_reveal/reveal.css">
<link rel="stylesheet" href="_reveal/white.css">
<link rel="stylesheet" href="elements.css">
<link rel="stylesheet" href="slides.css">
{mathjax}
<script defer src="_mathjax/startup.js"></script>
</head>
<body>
<div class="reveal"><div class="slides">
{text}
</div></div>
<div class="self-check-answers">{"".join(answers)}</div>
<script src="_reveal/reveal.js"></script>
<script src="_reveal/notes.js"></script>
<script src="self-checks.js"></script>
<script src="elements.js"></script>
<script src="slides.js"></script>
</body>
</html>
"""
    return page, images


def require_decks(target: Path, site: Path) -> None:
    """Require a place for decks: none yet, an empty folder, or one of decks, which is replaced.

    Raises:
        FileExistsError: something else stands there, or the book lies in it.
    """
    is_empty = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    is_decks = (target / "_reveal").is_dir() and (target / "slides.js").is_file()
    if not (is_empty or is_decks) or site.resolve().is_relative_to(target.resolve()):
        raise FileExistsError(
            f"{target} is no folder of slides, and what is in it would be lost: name another folder."
        )


def build(site: Path, target: Path) -> list[Path]:
    """Write all decks and what they need.

    Args:
        site: the built book.
        target: folder of the decks; an earlier one is replaced when all of them have been made.

    Returns:
        The decks.

    Raises:
        FileNotFoundError: the book, a part of it or reveal.js is missing; the message says how to get it.
        FileExistsError: `target` holds something else than decks.
    """
    if not (site / "book").is_dir():
        raise FileNotFoundError(f"no built book in {site}: call make book first.")
    require_decks(target, site)
    try:
        reveal = Path(str(files("sphinx_revealjs") / "_static" / "revealjs"))
    except ModuleNotFoundError:
        raise FileNotFoundError(
            "reveal.js is missing: call make slides, which installs it."
        ) from None
    made = {}
    for folder, pages in chapters(ROOT / "_toc.yml").items():
        try:
            made[folder] = deck(folder, pages, site)
        except (OSError, AttributeError, StopIteration) as error:
            raise FileNotFoundError(
                f"the pages of {folder} in {site} are missing or not those of this book ({error!r}): call "
                f"make book first."
            ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as beside:
        new = Path(beside) / "new"
        _write(made, site, reveal, new)
        if target.exists():
            target.replace(Path(beside) / "old")
        new.replace(target)
    return [target / f"{folder}.html" for folder in made]


def _write(made: dict[str, tuple[str, set[str]]], site: Path, reveal: Path, target: Path) -> None:
    """Write decks, each with the names of its images, and what they need to a new folder."""
    (target / "_images").mkdir(parents=True)
    (target / "_reveal").mkdir()
    for name in ("dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js"):
        shutil.copy(reveal / name, target / "_reveal")
    # The theme asks for fonts of another host; the decks have their own.
    theme = (reveal / "dist" / "theme" / "white.css").read_text(encoding="utf-8")
    theme = re.sub(r"@import[^;]+;", "", theme)
    (target / "_reveal" / "white.css").write_text(theme, encoding="utf-8")
    shutil.copytree(site / "_static" / "mathjax", target / "_mathjax")
    for own in ("self-checks.js", "elements.js", "elements.css"):
        shutil.copy(site / "_static" / own, target)
    for own in ROOT.glob("tools/slides.*s"):
        shutil.copy(own, target)
    links = []
    for folder, (text, images) in made.items():
        for name in images:
            shutil.copy(site / "_images" / name, target / "_images")
        (target / f"{folder}.html").write_text(text, encoding="utf-8")
        title = re.search("<title>(.*?)</title>", text)[1]
        links.append(f'<li><a href="{folder}.html">{title}</a></li>')
    (target / "index.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Slides</title>'
        f"<main><h1>Slides</h1><ul>{''.join(links)}</ul></main></html>",
        encoding="utf-8",
    )


def main() -> int:
    """Build the decks; 1 if something is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("site", nargs="?", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("target", nargs="?", type=Path, default=ROOT / "_build" / "slides")
    arguments = parser.parse_args()
    try:
        decks = build(arguments.site, arguments.target)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(decks)} decks: {arguments.target / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
