"""Mends what the theme leaves unreadable to screen readers, in every page that was written.

Style alone (contrast, width) is mended in ``_static/course.css``; here stands what needs other
markup. ``tests/book/test_accessibility.py`` audits the result.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

# In the list of chapters: the link to a chapter, then the toggle that unfolds its pages.
TOGGLE = re.compile(r'(<a class="[^"]*" href="[^"]*">)([^<]*)(</a><details[^>]*><summary)>')
REPLACED = (
    # Of these two roles the first needs children of the role "listitem", the second is deprecated.
    ('<div role="list" class="citation-list">', '<div class="citation-list">'),
    (' role="doc-biblioentry"', ""),
)


def mend(page: str) -> str:
    """Return the markup of one page with names where they are missing and no wrong roles."""
    page = TOGGLE.sub(lambda m: f'{m[1]}{m[2]}{m[3]} aria-label="Pages of {m[2]}">', page)
    for wrong, right in REPLACED:
        page = page.replace(wrong, right)
    return page


def mend_pages(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for path in Path(app.outdir).rglob("*.html"):
            page = path.read_text(encoding="utf-8")
            mended = mend(page)
            if mended != page:
                path.write_text(mended, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.connect("build-finished", mend_pages)
    return {"version": "1", "parallel_read_safe": True}
