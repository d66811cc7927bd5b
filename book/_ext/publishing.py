"""What a published site has besides its pages: previews, a site map, and itself as one file.

The public address of the pages follows from that of the repository in ``_config.yml``, so that a
fork has nothing to change here.
"""

import html
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from docutils import nodes
from jupyter_cache import get_cache
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

from equation_labels import ROOT
from repository import HOW_TO_SET, read
from reproducible_build import cache_folder

logger = logging.getLogger(__name__)

PREVIEW = "readme.png"
ARCHIVE = "book.zip"
FIGURES = "figures.zip"


def configure(app: Sphinx, config: Config) -> None:
    """Take the site's address from the repository's; without one, leave out what leads there."""
    options = config.html_theme_options
    repository = read(Path(app.confdir) / "_config.yml")
    # As people write it, with a slash or .git behind it, it would break the theme's links.
    options.update(repository_url=repository.url, path_to_docs=repository.folder)
    config.html_baseurl = repository.site if repository.is_set else ""
    if not repository.is_set:
        options.update(use_repository_button=False, use_issues_button=False, launch_buttons={})
        options["repository_url"] = ""
        logger.info(
            "The repository's address is not set, so pages have no badges, launch buttons or links to "
            "it. To set it: %s",
            HOW_TO_SET,
        )


def describe(doctree: nodes.document | None) -> str:
    """The first paragraph of a page, for a preview."""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        if isinstance(paragraph.parent, nodes.section):
            return " ".join(paragraph.astext().split())[:200]
    return "A course on deep generative models in which every equation is tested."


def add_preview(app: Sphinx, pagename, templatename, context, doctree) -> None:
    base = app.config.html_baseurl
    tags = {
        "og:type": "article",
        "og:site_name": app.config.project,
        "og:title": context.get("title") or app.config.project,
        "og:description": describe(doctree),
        "og:image:alt": "Two pages of the book: a tested equation, and a point dragged in a latent space",
    }
    if base:  # these two must be whole addresses
        tags |= {"og:url": f"{base}{pagename}.html", "og:image": f"{base}_static/{PREVIEW}"}
    lines = [
        f'<meta property="{name}" content="{html.escape(re.sub("<[^>]*>", "", value), quote=True)}"/>'
        for name, value in tags.items()
    ]
    lines.append('<meta name="twitter:card" content="summary_large_image"/>')
    context["metatags"] = context.get("metatags", "") + "\n" + "\n".join(lines) + "\n"


def sitemap(site: Path, base: str) -> str:
    """List the pages, not the highlighted sources of the library."""
    pages = sorted(
        path.relative_to(site).as_posix()
        for path in site.rglob("*.html")
        if not {"_modules", "_static"} & set(path.relative_to(site).parts)
    )
    entries = "".join(f"<url><loc>{base}{page}</loc></url>\n" for page in pages)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{entries}</urlset>\n'
    )


def write_sitemap(site: Path, base: str) -> None:
    """Write what search engines ask for; nothing without an address."""
    if not base:
        for name in ("sitemap.xml", "robots.txt"):
            (site / name).unlink(missing_ok=True)
        return
    (site / "sitemap.xml").write_text(sitemap(site, base), encoding="utf-8")
    (site / "robots.txt").write_text(f"User-agent: *\nSitemap: {base}sitemap.xml\n")


def pack(archive: Path, files: Mapping[str, Path]) -> None:
    """Pack files, by their names in the archive, into one; the same files give the same bytes."""
    archive.unlink(missing_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, path in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


def write_archive(site: Path) -> None:
    """Pack the site into one file."""
    archives = {site / ARCHIVE, site / FIGURES}
    files = sorted(p for p in site.rglob("*") if p.is_file() and p.suffix != ".map")
    pack(
        site / ARCHIVE,
        {
            f"deep-generative-models/{path.relative_to(site).as_posix()}": path
            for path in files
            if path not in archives
        },
    )


def notebook_drawings() -> dict[str, Path]:
    """The figures of the executed notebooks as drawings, by chapter, notebook and place in it."""
    cache, found = get_cache(str(cache_folder())), {}
    for path in sorted(ROOT.glob("book/*/*.ipynb")):
        try:
            record = cache.match_cache_notebook(nbformat.read(path, as_version=4))
        except KeyError:  # the build itself has executed it elsewhere, or not at all
            continue
        executed = cache_folder() / "executed" / record.hashkey / "artifacts"
        for drawing in sorted(executed.glob("*.svg")):
            found[f"{path.parent.name}/{path.stem}/{drawing.name}"] = drawing
    return found


def write_figures(site: Path) -> None:
    """Pack all figures as drawings for one's own slides.

    Those of the text, those of the notebooks, and the chapters' opening pictures.
    """
    drawn = {f"{p.parent.name}/{p.name}": p for p in sorted(ROOT.glob("_build/figures/*/*.svg"))}
    opening = {f"opening/{p.name}": p for p in sorted(ROOT.glob("book/_static/pictures/*.svg"))}
    files = {**drawn, **notebook_drawings(), **opening}
    pack(site / FIGURES, {f"figures/{name}": path for name, path in files.items()})


def publish(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        write_sitemap(Path(app.outdir), app.config.html_baseurl)
        write_archive(Path(app.outdir))
        write_figures(Path(app.outdir))


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.connect("config-inited", configure, priority=950)
    app.connect("html-page-context", add_preview)
    app.connect("build-finished", publish, priority=950)  # after the pages have been mended
    return {"version": "1", "parallel_read_safe": True}
