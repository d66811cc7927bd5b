"""Notebooks as people have them: encodings, formats, sizes; answers in words, wherever they stand."""

import gzip
import io
import json
import tracemalloc
import zipfile

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.grading.notebook import CELL_LIMIT, FILE_LIMIT, SUBMISSION_LIMIT, read_notebook
from course_lib.grading.question import Written
from course_lib.grading.recognising import other_assignment
from course_lib.grading.text import storable
from course_lib.grading.written import lines_handed_out, written_answer

from .assignments import ASSIGNMENTS
from .course import make
from .test_classroom import MINI

TEXT = nbformat.writes(make.notebook(make.TARGET, "text = 'Größe'"))
ASCII = json.dumps(json.loads(TEXT))
WORDS = next(q for q in MINI.questions if isinstance(q, Written))


def sources(content: bytes) -> list[str]:
    return [cell["source"] for cell in read_notebook(content)["cells"]]


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        TEXT.encode("latin-1"),
        TEXT.encode("cp1252"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.encode() + b"\0" * 5000,
        TEXT.encode("utf-16") + b"\0" * 500,
        b"\n\n  " + TEXT.encode() + b"\n\n",
        ASCII.encode(),
        TEXT.replace('"metadata": {}', '"metadata": {"x": NaN, "y": -Infinity}', 1).encode(),
        TEXT.replace('"metadata": {}', '"metadata": {"x": %s}' % ("9" * 6000), 1).encode(),
    ],
    ids=lambda value: repr(value)[:16] if isinstance(value, bytes) else value,
)  # fmt: skip
def test_a_notebook_is_read_however_it_was_stored(content):
    assert sources(content) == sources(TEXT.encode())


@given(
    st.lists(
        st.sampled_from([b"\xff", b"\x93", b"\xe4", b"\xc3 ", b"\xf0\x9f", b"\x80"]), max_size=3
    ),
    st.lists(st.sampled_from([b"\xed\xa0\xbd", b"\xed\xb8\x80"]), max_size=3),
)
def test_a_damaged_byte_damages_nothing_else(stray, halves):
    """Identifiers such as σ stay what they are; so a stray byte in a comment costs no points."""
    whole = json.dumps(json.loads(TEXT) | {"metadata": {"x": "STRAY HALF"}}, ensure_ascii=False)
    for damage in (stray, halves):
        damaged = whole.encode().replace(b"STRAY", b"".join(damage))
        assert sources(damaged) == sources(TEXT.encode())


def test_halves_of_a_character_become_signs_and_two_that_fit_become_one():
    made = json.dumps(nbformat.from_dict(make.with_cells(["# PAIR HALF é"])), ensure_ascii=False)
    raw = (
        made.encode()
        .replace(b"PAIR", b"\xed\xa0\xbd\xed\xb8\x80")
        .replace(b"HALF", b"\xed\xa0\xbd")
    )
    (source,) = sources(raw)
    assert storable(source) == "# 😀 � é"


def test_line_ends_inside_of_cells_are_those_of_the_course():
    for end in ("\r\n", "\r", "\n"):
        made = make.with_cells([f"a = 1{end}b = 2{end}"])
        assert sources(nbformat.writes(made).encode()) == ["a = 1\nb = 2\n"]


def test_what_was_read_is_read_again_to_the_same():
    once = read_notebook(TEXT.encode())
    assert read_notebook(json.dumps(once).encode()) == once


def test_a_notebook_of_format_3_is_read():
    cells = [
        {"cell_type": "heading", "level": 1, "source": ["Title"], "metadata": {}},
        {"cell_type": "code", "input": ["a = 1\n", "b = 2"], "language": "python", "outputs": []},
        {"cell_type": "markdown", "source": "text"},
    ]
    old = {
        "nbformat": 3,
        "nbformat_minor": 0,
        "worksheets": [{"cells": cells[:2]}, {"cells": cells[2:]}],
    }
    read = read_notebook(json.dumps(old).encode())["cells"]
    assert [(c["cell_type"], c["source"]) for c in read] == [
        ("markdown", "Title"), ("code", "a = 1\nb = 2"), ("markdown", "text"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cell", "kind", "source"),
    [
        ({"source": "x", "outputs": []}, "code", "x"),
        ({"source": "x", "execution_count": None}, "code", "x"),
        ({"source": "x"}, "markdown", "x"),
        ({"cell_type": None, "source": ["x", "y"]}, "markdown", "xy"),
        ({"cell_type": "code"}, "code", ""),
        ({"cell_type": "code", "source": None, "id": 5, "metadata": "text"}, "code", ""),
        ({"cell_type": "raw", "source": "x", "metadata": {"nbgrader": [1]}}, "raw", "x"),
    ],
)
def test_odd_cells_are_read(cell, kind, source):
    (read,) = read_notebook(json.dumps({"cells": [cell]}).encode())["cells"]
    assert (read["cell_type"], read["source"], read["metadata"]) == (kind, source, {})


@pytest.mark.parametrize("value", [True, None, 1, "text", [], {}])
def test_marks_of_cells_are_of_their_kinds(value):
    marks = dict.fromkeys(("grade_id", "grade", "solution", "locked", "points"), value)
    cell = {"cell_type": "markdown", "source": "x", "metadata": {"nbgrader": marks}}
    notebook = read_notebook(json.dumps({"cells": [cell]}).encode())
    kept = notebook["cells"][0]["metadata"]["nbgrader"]
    if value is True:
        assert kept == dict.fromkeys(("grade", "solution", "locked"), True)
    else:
        assert kept == ({"grade_id": value} if isinstance(value, str) else {})
    assert other_assignment(notebook, ASSIGNMENTS[0]) is None


def archive() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("vae.ipynb", TEXT)
    return made.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (archive(), "a zip archive"),
        (gzip.compress(TEXT.encode()), "a gzip archive"),
        (b"%PDF-1.7 ...", "a PDF"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"\n<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"# %%\nimport torch\n", "a Python program"),
        (b"\0" * 4096, "the file is empty"),
        (b"\xef\xbb\xbf", "no JSON"),
        (b'{"cells": [', "no JSON"),
        (b"\x80\x81\x82", "no UTF-8 text and no JSON"),
        (b'{"cells": ' + b"[" * 200_000, "nested more than 200 deep"),
        (b'{"cells": [' + b'{"a":' * 200_000, "nested more than 200 deep"),
        (b'{"cells": {"source": "x"}}', "no list of cells"),
        (b'{"cells": [{"source": [1]}]}', "no text"),
    ],
    ids=lambda value: repr(value)[:16] if isinstance(value, bytes) else value,
)
def test_what_is_not_a_notebook_is_called_by_its_name(content, said):
    with pytest.raises(ValueError, match=said):
        read_notebook(content)


def test_sizes_are_those_that_are_there():
    def cell(text: str) -> bytes:
        return json.dumps({"cells": [{"cell_type": "code", "source": text}]}).encode()

    assert len(sources(cell("x" * SUBMISSION_LIMIT))[0]) == SUBMISSION_LIMIT
    with pytest.raises(ValueError, match=r"hold 39\.7 MiB of text; at most 20 MiB"):
        read_notebook(cell("x" * int(39.7 * 2**20)))
    with pytest.raises(ValueError, match=r"has 65\.0 MiB; at most 64 MiB"):
        read_notebook(b"x" * (FILE_LIMIT + 2**20))
    with pytest.raises(ValueError, match=f"{CELL_LIMIT + 1} cells"):
        read_notebook(json.dumps({"cells": [{}] * (CELL_LIMIT + 1)}).encode())


@pytest.mark.parametrize("piece", [b"{},", b'{"":0},', b"[],", b"0,", b'"",'])
def test_reading_takes_a_few_times_the_size_of_the_file_at_most(piece):
    content = b'{"cells": [' + piece * (20 * 2**20 // len(piece)) + b"{}]}"
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than 3,000,000 values"):
            read_notebook(content)
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


def released(assignment) -> dict:
    path = assignment.folder / "student" / f"{assignment.name}.ipynb"
    return read_notebook(path.read_bytes())


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=lambda a: a.name)
def test_the_notebook_of_another_assignment_is_recognized(assignment):
    for other in ASSIGNMENTS:
        expected = None if other == assignment else other.name
        solved = read_notebook(other.master.read_bytes())
        for notebook in (released(other), solved):
            assert other_assignment(notebook, assignment) == expected
        for cell in solved["cells"]:
            cell["metadata"] = {}
        assert other_assignment(solved, assignment) == expected
        assert other_assignment({"cells": solved["cells"][:3]}, assignment) is None


def test_one_answer_of_this_assignment_makes_it_this_assignments_notebook():
    vae, gan = (next(a for a in ASSIGNMENTS if a.name == name) for name in ("vae", "gan"))
    mixed = released(gan)
    mixed["cells"].append(
        {"cell_type": "code", "source": "def kl_diagonal(a):\n    return a", "metadata": {}}
    )
    assert other_assignment(mixed, vae) is None


STUB = "YOUR ANSWER HERE"


def words(text: str) -> dict:
    return {
        "cell_type": "markdown",
        "source": text,
        "metadata": {"nbgrader": {"grade_id": "words", "grade": True}},
    }


def plain(text: str, kind: str = "markdown", **more) -> dict:
    return {"cell_type": kind, "source": text, "metadata": {}} | more


def answer(*cells: dict):
    before = read_notebook(nbformat.writes(make.master()).encode())["cells"][:-1]
    return written_answer([*before, *cells], WORDS, lines_handed_out(MINI.master))


@pytest.mark.parametrize(
    ("cells", "text"),
    [
        ([words("Because.")], "Because."),
        ([words(f"{STUB}\n\nBecause.")], "Because."),
        ([words(f"Because.\n{STUB}")], "Because."),
        ([words(f"**{STUB}**\nBecause.")], "Because."),
        ([words(STUB), words("Because.")], "Because."),
        ([words("Because."), words(STUB)], "Because."),
        ([words("First."), words("Second.")], "First.\n\nSecond."),
        ([words("First."), plain("x = 1", "code"), words("Second.")], "First.\n\nSecond."),
        ([words("Same."), words("Same.")], "Same."),
        ([words("Because.") | {"cell_type": "code"}], "Because."),
        ([words("Because.") | {"cell_type": "raw"}], "Because."),
        ([words(STUB)], ""),
        ([words(f"  {STUB.lower()} \n\n")], ""),
        ([words("")], ""),
        ([words(" \n ")], ""),
        ([words(STUB), words(STUB)], ""),
        ([words(STUB), plain("print(3)", "code")], ""),
        ([words(STUB), plain("# plot it\nplot(3)", "code")], ""),
    ],
)
def test_an_answer_in_words_is_all_that_stands_in_its_cells(cells, text):
    found = answer(*cells)
    assert (found.text, found.doubt) == (text, "")


@pytest.mark.parametrize(
    "cells",
    [
        [words(STUB), plain("Because.")],
        [plain("Because."), words(STUB)],
        [words(STUB), plain("x = 1", "code"), plain("Because.")],
        [words(STUB), plain("# Because.", "code")],
        [words(STUB), plain('"""Because."""', "code")],
        [words(STUB), plain("Because.", "raw")],
        [words(""), plain("Because.")],
        [words(STUB), words(STUB), plain("Because.")],
        [plain("x = 1\n# " + "Because. " * 12 + "\ny = 2", "code"), words(STUB)],
    ],
)
def test_text_beside_an_untouched_stub_is_shown_and_a_person_looks(cells):
    found = answer(*cells)
    assert "Because." in found.text
    assert "beside" in found.doubt


def test_text_behind_an_answer_is_shown_with_it():
    found = answer(words("First."), plain("Second."))
    assert found.text.startswith("First.\n")
    assert found.text.endswith("Second.")


@pytest.mark.parametrize("text", [STUB, "See ![it](attachment:it.png)", '<img src="it.png">'])
def test_an_answer_that_is_an_image_is_looked_at(text):
    found = answer(words(text) | {"attachments": True})
    assert found.text
    assert "image" in found.doubt


def test_a_notebook_without_the_cell_of_the_answer_is_left_to_a_person():
    assert answer(plain("Because.")) is None


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=lambda a: a.name)
def test_the_notebook_that_is_handed_out_holds_no_answer_in_words(assignment):
    """And words that are added to any text cell near the stub, the question's own included, are seen."""
    question = next(q for q in assignment.questions if isinstance(q, Written))
    given = lines_handed_out(assignment.master)
    cells = released(assignment)["cells"]
    assert written_answer(cells, question, given).text == ""
    own = next(
        i
        for i, c in enumerate(cells)
        if c["metadata"].get("nbgrader", {}).get("grade_id") == question.name
    )
    above = max(i for i in range(own) if cells[i]["cell_type"] == "markdown")
    cells[above]["source"] += "\n\nBecause the images are binary."
    found = written_answer(cells, question, given)
    assert found.text == "Because the images are binary."
    assert found.doubt


@pytest.mark.parametrize("kind", ["code", "markdown"])
@pytest.mark.parametrize(
    "text", ['"""x\n', "![", "# \n", "YOUR ANSWER", " ", "\n\n", "'''", "def f", "a="]
)
def test_no_text_keeps_the_grader_busy(text, kind):
    """The work grows with the length, not with its square: this would take hours otherwise."""
    cell = plain(text * (2**18 // len(text)), kind)
    answer(words(STUB), cell)
    answer(words(cell["source"]) | {"cell_type": kind})
    other_assignment({"cells": [cell]}, ASSIGNMENTS[0])


@pytest.mark.parametrize(
    "text", ['"' + '\\"' * 2_000_000, '"' * 2_000_001, "[" * 250 + '"' + "\\" * 3_000_000]
)
def test_measuring_the_depth_of_a_text_takes_one_pass(text):
    """Quadratic time would take hours here."""
    with pytest.raises(ValueError, match=r"JSON|nested"):
        read_notebook(("[" * 201 + text).encode())
