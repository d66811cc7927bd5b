"""Keeps a page below 3 MB before anything is clicked, and whole when opened from a folder.

* Icons: the theme loads 1.8 MB of Font Awesome for two dozen of them. Those that the pages use are
  cut out of its fonts into one small style sheet; inside it they also show where a browser
  refuses to load fonts from files.
* Figures further down are loaded when the reader comes near them; their size is written beside them,
  so that nothing moves when they come.
* Large pictures: a drawing of a notebook with thousands of blended shades, such as a cloud of dots, is stored
  with 256 colours, a third of its size.
* Search: its index is loaded by the search page alone.
* Formulas: what typesets them, 2 MB, is loaded by pages that have any.
"""

import base64
import io
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from PIL import Image
from sphinx.application import Sphinx

LARGE = 60_000  # bytes of a picture that is worth the loss of shades
FACES = {  # file: family
    "fa-solid-900.ttf": "Font Awesome 6 Free",
    "fa-brands-400.ttf": "Font Awesome 6 Brands",
}
UNUSED = re.compile(
    r"<(?:script|link)\b[^>]*fontawesome\.js[^>]*/?>(?:</script>)?|<link[^>]*\.woff2[^>]*/?>"
)
SEARCH = re.compile(r"<script[^>]*(?:searchtools|language_data|searchindex)\.js[^>]*></script>")
MATHJAX = re.compile(
    r"<script>window\.MathJax = .*?</script>\s*|<script[^>]*mathjax/startup\.js[^>]*></script>"
)
# What MathJax looks for, as Sphinx tells it.
FORMULA = re.compile(r'class="(?:[^"]* )?(?:math|output_area|mathjax_process|tex2jax_process)[ "]')
FIGURE = re.compile(r'<img (?![^>]*\bloading=)([^>]*src="[^"]*_images/([^"]+)")')
DESIGN = re.compile(
    r"<script[^>]*design-tabs\.js[^>]*></script>|<link[^>]*sphinx-design\.min\.css[^>]*/?>"
)


def used_names(site: Path) -> set[str]:
    """Names of the icons that a page or a script mentions."""
    names: set[str] = set()
    for path in [*site.rglob("*.html"), *site.glob("_static/**/*.js")]:
        names.update(re.findall(r"\bfa-[a-z-]+", path.read_text(encoding="utf-8")))
    return names


def without_unused_icons(style: str, names: set[str]) -> str:
    """The theme's style without the rules of icons that are not used, a third of its size."""

    def keep(rule: re.Match) -> str:
        return rule[0] if names & set(re.findall(r"\.(fa-[\w-]+)", rule[0])) else ""

    return re.sub(r'(?:\.fa-[\w-]+:before,?)+\{content:"[^"]+"\}', keep, style)


def used_icons(site: Path, style: str) -> set[int]:
    """Code points of the icons that a remaining rule of any style sheet shows."""
    wanted = re.findall(r':before\{content:"([^"]+)"', style)
    wanted += re.findall(r'--pst-icon-[\w-]+:"([^"]+)"', style)
    for sheet in site.glob("_static/**/*.css"):
        if sheet.name != "pydata-sphinx-theme.css":
            wanted += re.findall(r'"(\\f[0-9a-f]{2,3})"', sheet.read_text(encoding="utf-8"))
    # Either the character itself or its number in hexadecimal digits.
    codes = (
        c[1:] if c.startswith("\\") else f"{ord(c):x}"
        for c in wanted
        if len(c) == 1 or c[0] == "\\"
    )
    return {int(code, 16) for code in codes if re.fullmatch("[0-9a-f]+", code)}


def face(path: Path, family: str, icons: set[int]) -> str:
    """A style rule that holds the part of a font with some icons."""
    font = TTFont(path)
    weight = 900 if "900" in path.name else 400
    cutter = subset.Subsetter()
    cutter.populate(unicodes=icons)
    cutter.subset(font)
    font.flavor = "woff"
    font["head"].modified = font["head"].created  # the same bytes at every build
    buffer = io.BytesIO()
    font.save(buffer, reorderTables=None)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'@font-face {{ font-family: "{family}"; font-weight: {weight}; font-style: normal; '
        f"src: url(data:font/woff;base64,{data}); }}\n"
    )


def load_late(site: Path) -> Callable[[re.Match], str]:
    """Make the replacement of `FIGURE`: an image that is loaded late but keeps its place free."""

    @cache
    def size(name: str) -> str:
        if name.endswith(".svg"):
            head = (site / "_images" / name).read_text(encoding="utf-8")[:2000]
            box = re.search(r'<svg[^>]*\bviewBox="0 0 ([\d.]+) ([\d.]+)"', head)
            # Only their ratio counts, since a page says how wide a drawing is; whole numbers must do.
            return (
                f'width="{10 * float(box[1]):.0f}" height="{10 * float(box[2]):.0f}" '
                if box
                else ""
            )
        if not name.endswith(".png"):
            return ""
        with Image.open(site / "_images" / name) as image:
            return f'width="{image.width}" height="{image.height}" '

    def replace(tag: re.Match) -> str:
        return f'<img loading="lazy" {size(tag[2])}{tag[1]}'

    return replace


def with_few_colours(path: Path) -> None:
    """Store a large picture with 256 colours, if that makes it smaller."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        if image.mode == "RGBA" and image.getextrema()[3][0] < 255:
            return  # what shines through would be lost
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        few.save(buffer, format="png", optimize=True)
    if len(buffer.getvalue()) < path.stat().st_size:
        path.write_bytes(buffer.getvalue())


def lighten(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    for path in site.glob("_images/*.png"):
        if path.stat().st_size > LARGE:
            with_few_colours(path)
    late = load_late(site)
    for path in site.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        light = FIGURE.sub(late, UNUSED.sub("", page))
        if path != site / "search.html":
            light = SEARCH.sub("", light)
        if not FORMULA.search(page):
            light = MATHJAX.sub("", light)
        if 'class="sd-' not in page:
            light = DESIGN.sub("", light)
        if light != page:
            path.write_text(light, encoding="utf-8")
    sheet = site / "_static/styles/pydata-sphinx-theme.css"
    style = without_unused_icons(sheet.read_text(encoding="utf-8"), used_names(site))
    sheet.write_text(style, encoding="utf-8")
    icons = used_icons(site, style)
    fonts = site / "_static/vendor/fontawesome"
    faces = [face(next(fonts.rglob(file)), family, icons) for file, family in FACES.items()]
    (site / "_static" / "icons.css").write_text("".join(faces), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.add_css_file("icons.css", priority=900)
    app.connect("build-finished", lighten)
    return {"version": "1", "parallel_read_safe": True}
