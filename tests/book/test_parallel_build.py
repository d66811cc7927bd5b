"""The site's pages are written by all processors; a printed book is one document."""

from types import SimpleNamespace

import parallel_build
import pytest


@pytest.mark.parametrize(
    ("kind", "count", "parallel"),
    [("html", 2, 3), ("html", 1, 1), ("latex", 2, 1), ("html", 64, 9)],
)
def test_pages_of_the_site_are_written_by_all_processors(monkeypatch, kind, count, parallel):
    monkeypatch.setattr(parallel_build, "processors", lambda: count)
    app = SimpleNamespace(parallel=1, builder=SimpleNamespace(format=kind))
    parallel_build.use_processors(app, None)
    assert app.parallel == parallel
