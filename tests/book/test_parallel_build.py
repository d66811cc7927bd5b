"""Pages may be read by several processes: what each has noted is put together."""

from types import SimpleNamespace

import common_mistakes
import parallel_build
import pytest


def environment(mistakes, pages):
    return SimpleNamespace(mistakes=dict(mistakes), mistake_pages=set(pages))


def test_what_another_process_noted_of_its_pages_is_taken_over():
    own = environment({"a": "x", "b": "old"}, ["list"])
    other = environment({"b": "new", "c": "of a page that it did not read"}, ["b", "c"])
    common_mistakes.merge(None, own, {"b", "d"}, other)
    assert own.mistakes == {"a": "x", "b": "new"}
    assert own.mistake_pages == {"list", "b"}


@pytest.mark.parametrize(
    ("kind", "count", "parallel"),
    [("html", 2, 3), ("html", 1, 1), ("latex", 2, 1), ("html", 64, 9)],
)
def test_pages_of_the_site_are_read_and_written_by_all_processors(
    monkeypatch, kind, count, parallel
):
    monkeypatch.setattr(parallel_build, "processors", lambda: count)
    undeclared = SimpleNamespace(parallel_read_safe=None)
    app = SimpleNamespace(
        parallel=1,
        builder=SimpleNamespace(format=kind),
        extensions={parallel_build.UNDECLARED[0]: undeclared},
    )
    parallel_build.use_processors(app, None, [])
    assert app.parallel == parallel
    assert undeclared.parallel_read_safe
