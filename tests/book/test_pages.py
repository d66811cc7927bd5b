"""Opens every page of the built book in a real browser, with the network cut.

Needs `make book` and a Chromium; both are named where one is missing. Run by `make test`, which
builds the book first.
"""

import base64
import json
import re
import zipfile
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import drawn_figures
import nbformat
import notebooks
import numpy as np
import publishing
import pytest
import tested_equations
import torch
from sphinx.util.inventory import InventoryFile

from .families import undescribed

pytestmark = pytest.mark.browser

MEGABYTE = 1_000_000
# All that a reader sees of an element: its drawings, pictures and words.
SEEN = """figure => [
  ...Array.from(figure.querySelectorAll("svg, output"), node => node.innerHTML),
  ...Array.from(figure.querySelectorAll("img"), image => image.src),
  ...Array.from(figure.querySelectorAll("canvas"), canvas => canvas.toDataURL()),
].join()"""


def test_page_works_without_a_network(opened, page):
    assert not opened.foreign, "the page asks another host"
    assert not opened.errors
    formulas = page.locator("span.math, div.math").count()
    typeset = page.locator("span.math mjx-container, div.math mjx-container").count()
    assert typeset >= formulas, f"{formulas} formulas, {typeset} typeset"
    assert page.locator("mjx-merror, [data-mml-node=merror]").count() == 0
    files = {unquote(urlsplit(url).path) for url in opened.first_loaded}
    weight = sum(Path(file).stat().st_size for file in files)
    assert weight <= 3 * MEGABYTE, f"the page loads {weight / MEGABYTE:.2f} MB before interaction"
    # Figures further down wait for the reader, and have their place from the start.
    broken, moved = page.evaluate(
        """async () => {
          const images = Array.from(document.images).filter(image => image.offsetParent);
          const height = document.body.scrollHeight;
          for (const image of images) image.loading = "eager";
          await Promise.allSettled(images.map(image => image.decode()));
          const broken = images.filter(image => !image.naturalWidth).map(image => image.src);
          return [broken, document.body.scrollHeight - height];
        }"""
    )
    assert not broken
    assert abs(moved) <= 2, "the page moves when its figures come"


def test_code_and_outputs_fit_a_laptop(page):
    """No line that is open from the start must be scrolled sideways beside the contents."""
    wide = page.evaluate(
        """() => Array.from(document.querySelectorAll("article pre"))
             .filter(node => node.clientWidth > 0 && node.innerText.trim())
             .filter(node => node.scrollWidth > node.clientWidth + 1)
             .map(node => node.innerText.slice(0, 100))"""
    )
    assert not wide


def test_a_page_loads_the_script_of_its_elements_once(page):
    """As a file that all pages share; a page without elements does not load it."""
    scripts = [node.get_attribute("src") or "" for node in page.locator("script").all()]
    loaded = [source for source in scripts if "_static/elements.js" in source]
    assert len(loaded) == bool(page.locator(".course-element").count())
    assert "start_plane" not in page.content()


def test_a_page_without_formulas_does_not_load_what_typesets_them(opened, page):
    formulas = page.locator("span.math, div.math").count()
    assert bool(formulas) == any("/mathjax/startup.js" in url for url in opened.first_loaded)


FUNCTIONS = {"relu": torch.relu, "tanh": torch.tanh, "": torch.clone}


def decode_as_torch(data, z):
    """The image of a latent plane at z, from the page's own weights."""
    value = torch.tensor(z, dtype=torch.float32)
    dtype = torch.float16 if data["half"] else torch.float32
    for layer in data["layers"]:
        weight, bias = (
            torch.frombuffer(bytearray(base64.b64decode(layer[name])), dtype=dtype).float()
            for name in ("weight", "bias")
        )
        value = torch.nn.functional.linear(value, weight.view(-1, layer["inputs"]), bias)
        value = FUNCTIONS[layer["function"]](value)
    return value.sigmoid().numpy()


def check_decoded(figure):
    """Compare the pixels that the page shows with torch's, at the point where it stands."""
    data = json.loads(figure.locator("script[type='application/json']").text_content())
    shown = figure.locator("canvas.image").evaluate(
        "c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
    )
    grey = np.array(shown).reshape(-1, 4)[:, 0] / 255
    z = json.loads(figure.get_attribute("data-z"))
    np.testing.assert_allclose(grey, decode_as_torch(data, z), atol=1 / 255)


def test_elements_of_the_page_move(opened, page):
    for figure in page.locator(".course-element").all():
        seen = figure.evaluate(SEEN)

        def has_moved(what, figure=figure):
            nonlocal seen
            before, seen = seen, figure.evaluate(SEEN)
            assert seen != before, f"{what} changes nothing in {figure.get_attribute('id')}"
            if figure.locator("canvas.image").count():
                check_decoded(figure)

        for slider in figure.locator("input[type=range]").all():
            slider.focus()
            page.keyboard.press("ArrowRight")
            has_moved("a key on a slider")
            box = slider.bounding_box()
            page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
            has_moved("a click on a slider")
        for choice in figure.locator("select").all():
            for option in range(1, choice.locator("option").count()):
                choice.select_option(index=option)
                has_moved("a choice")
        for box in figure.locator("input[type=checkbox]").all():
            box.focus()
            page.keyboard.press("Space")
            has_moved("a tick")
        for surface in figure.locator("canvas[tabindex], svg[tabindex], svg.drag").all():
            surface.scroll_into_view_if_needed()
            box = surface.bounding_box()
            x, y = box["x"] + 0.3 * box["width"], box["y"] + 0.35 * box["height"]
            page.mouse.move(x, y)
            page.mouse.down()
            has_moved("a press")
            page.mouse.move(x + 0.4 * box["width"], y)
            page.mouse.up()
            has_moved("a drag")
            page.touchscreen.tap(x, y + 0.3 * box["height"])
            has_moved("a tap")
            if surface.get_attribute("tabindex") is None:
                continue  # a slider does the same for the keyboard
            surface.focus()
            for key in ("ArrowUp", "ArrowLeft"):
                page.keyboard.press(key)
                has_moved(key)
    assert not opened.errors


def test_search_works_without_a_network(visit, site):
    visit = visit(site / "search.html", query="?q=importance")
    visit.page.wait_for_selector("#search-results li", timeout=10_000)
    assert visit.page.locator("#search-results li").count() >= 1
    assert not visit.foreign
    visit.page.close()


def test_a_student_walks_through_a_chapter_on_a_phone(visit, site):
    """By touch: front page, theory, a question, a notebook, the assignment, and back."""
    opened = visit(
        site / "book" / "intro.html", has_touch=True, viewport={"width": 390, "height": 844}
    )
    page = opened.page
    page.set_default_timeout(180_000)  # ten pages with formulas, on a machine that may be busy

    def arrive(name):
        page.wait_for_url(f"**/{name}.html")
        page.wait_for_function("!window.MathJax || window.MathJax.startup?.promise")
        page.evaluate("window.MathJax?.startup?.promise")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name

    def choose(name):
        page.locator(".primary-toggle:visible").tap()
        file = name.split("/")[-1]  # a page of the same chapter is linked without its folder
        page.locator(f"dialog[open] .bd-links a[href$='{file}.html']").tap()
        arrive(name)

    page.locator("article .gallery a[href$='vae/theory.html']").tap()
    arrive("vae/theory")
    question = page.locator(".self-check-options").first
    question.locator("input[type=radio]").first.tap()
    question.locator("button", has_text="Check").tap()
    assert question.locator(".verdict").inner_text().strip()
    choose("vae/latent-space")
    seen = page.locator("#recorded-plane").evaluate(SEEN)
    page.locator("#recorded-plane canvas.plane").tap()
    page.locator("#recorded-plane canvas.plane").tap(position={"x": 60, "y": 40})
    assert page.locator("#recorded-plane").evaluate(SEEN) != seen
    choose("instructors/assignments")
    page.locator("article a[href$='student/vae.html']").first.tap()
    arrive("student/vae")
    for name in ("instructors/assignments", "vae/latent-space", "vae/theory", "book/intro"):
        page.go_back()
        arrive(name)
    assert not opened.errors
    assert not opened.foreign
    page.close()


def test_the_reference_holds_every_public_name(site):
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, name: name)
    described = {
        name for kind, names in inventory.items() if kind.startswith("py:") for name in names
    }
    assert not undescribed(described)


def test_the_site_can_be_published(site):
    base = "https://ada.github.io/course/"
    addresses = re.findall("<loc>(.*?)</loc>", publishing.sitemap(site, base))
    assert f"{base}book/intro.html" in addresses
    for address in addresses:
        assert (site / address.removeprefix(base)).is_file(), address
    page = (site / "book" / "intro.html").read_text(encoding="utf-8")
    for name in ("title", "description", "image:alt"):
        assert f'property="og:{name}"' in page
    favicon = re.search(r'rel="icon" href="(.*?)"', page)[1]
    assert (site / "book" / favicon).is_file()
    assert (site / "_static" / publishing.PREVIEW).is_file()
    # What must be a whole address is there where one is set, and nowhere else.
    whole = [(site / "sitemap.xml").exists(), 'property="og:image"' in page, 'og:url"' in page]
    assert whole == [notebooks.repository().is_set] * 3


def test_the_counts_of_the_front_page_are_those_of_the_pages(site):
    pages = [path.read_text(encoding="utf-8") for path in (site / "book").rglob("*.html")]
    known = tested_equations.counts()
    for name, mark in (
        ("equations", r'id="equation-eq-'),
        ("elements", r'<figure class="course-element"'),
        ("questions", r'class="self-check self-check-'),
    ):
        assert sum(len(re.findall(mark, page)) for page in pages) == known[name], name
    front = (site / "book" / "intro.html").read_text(encoding="utf-8")
    for name in ("equations", "figures", "elements", "questions", "notebooks", "models"):
        assert re.search(rf"\b{known[name]}\b", front), name


def test_the_drawings_to_download_are_those_of_the_pages(site):
    """Each drawn figure of a text and each figure of a notebook is in the archive, as a drawing."""
    with zipfile.ZipFile(site / publishing.FIGURES) as packed:
        names = packed.namelist()
        for name in names:
            assert ElementTree.fromstring(packed.read(name)).tag.endswith("}svg"), name
    wanted = {
        f"figures/{path.parent.name}/{name}.svg"
        for path in drawn_figures.chapters()
        for name in drawn_figures.drawings(drawn_figures.load(path))
    }
    for path in notebooks.notebooks():
        page = (site / path.relative_to(notebooks.ROOT)).with_suffix(".html")
        shown = re.findall(
            r'<figure [^>]*\bid="fig-([\w-]+)">\s*<img ', page.read_text(encoding="utf-8")
        )
        # The figures of cells, in the order of the page; drawings of the text are counted above.
        cells = nbformat.read(path, as_version=4).cells
        own = [cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells]
        shown = [name for name in shown if f"fig-{name}" in own]
        folder = f"figures/{path.parent.name}/{path.stem}"
        wanted |= {f"{folder}/{place:02d}-{name}.svg" for place, name in enumerate(shown, 1)}
        assert len(shown) == len(list(filter(None, own))), path
    left = {name for name in names if not re.match("figures/(opening|recorded)/", name)}
    assert left == wanted


def test_the_download_is_whole_and_works_from_its_folder(visit, site, tmp_path):
    assert 'href="../book.zip"' in (site / "book" / "intro.html").read_text(encoding="utf-8")
    with zipfile.ZipFile(site / "book.zip") as packed:
        packed.extractall(tmp_path)
    opened = visit(tmp_path / "deep-generative-models" / "index.html")
    opened.page.wait_for_url("**/book/intro.html")
    opened.page.click("article a[href$='latent-space.html']")
    opened.page.wait_for_selector("canvas.plane")
    assert not opened.foreign
    assert not opened.errors
    opened.page.close()
