"""Notebooks are stored clean, start alike, and their figures can be read without being seen."""

import tomllib

import kernels
import nbformat
import notebooks as tool
import pytest
from reproducible_build import without_words

ROOT = tool.ROOT
FILES = tool.notebooks()


@pytest.fixture(params=FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_notebook_is_in_the_contents_and_in_both_tables(file):
    place = file.relative_to(ROOT / "book")
    for name, entry in (
        ("_toc.yml", f"file: book/{place.with_suffix('')}\n"),
        ("README.md", f"(book/{place})"),
        ("book/intro.md", f"({place})"),
    ):
        assert entry in (ROOT / name).read_text(encoding="utf-8"), f"{name} lacks {entry.strip()}"


def test_only_compared_cells_store_outputs_and_all_of_them_do(notebook):
    for cell in code(notebook):
        if tool.is_compared(cell):
            # A compared cell without a stored output would pass every comparison.
            assert cell.outputs, f"nothing is stored to compare with:\n{cell.source}"
            assert cell.execution_count is not None
            for output in cell.outputs:
                assert output.output_type == "stream", f"only text is compared:\n{cell.source}"
        else:
            assert not cell.outputs, f"outputs are stored:\n{cell.source}"
            assert cell.execution_count is None


def test_at_least_one_cell_is_compared(notebook):
    assert any(map(tool.is_compared, code(notebook))), f"no cell has the tag {tool.COMPARED}"


def test_the_first_code_cell_is_the_common_setup(notebook):
    first = code(notebook)[0]
    setup = tool.setup_cell(tool.repository())
    assert first.source == setup, "copy it from another notebook, or: tools/notebooks.py sync"
    assert "hide-cell" in first.metadata.tags


def test_a_parameter_cell_does_more_where_there_is_a_gpu(notebook):
    parameters = [c for c in code(notebook) if "parameters" in c.metadata.get("tags", [])]
    assert len(parameters) == 1, "one cell has the tag parameters"
    # Tiny networks are faster without one, and say so.
    on_the_cpu = (
        'accelerator="cpu"',
        "study.train(",
    )  # the study on the line chooses the CPU itself
    trained_on_the_cpu = any(text in c.source for c in code(notebook) for text in on_the_cpu)
    small = "networks this small are faster on a processor" in parameters[0].source
    assert ("torch.cuda.is_available()" in parameters[0].source) != small
    assert trained_on_the_cpu or not small


def test_open_code_fits_the_page(notebook):
    """As wide as `book/ruff.toml` says; ruff breaks neither strings nor comments."""
    columns = tomllib.loads((ROOT / "book" / "ruff.toml").read_text())["line-length"]
    for cell in code(notebook):
        if not any("hide" in tag for tag in cell.metadata.get("tags", [])):
            wide = [line for line in cell.source.splitlines() if len(line) > columns]
            assert not wide, f"wider than {columns} columns:\n{wide[0]}"


def draws_a_figure(cell):
    calls = ("plt.subplots(", "image_grid(", "curves(", "posterior_ellipses(", "density_1d(")
    return any(call in cell.source for call in (*calls, "density_2d(")) and not any(
        word in cell.source for word in ("def draw", "frame_slider(")
    )


def test_every_figure_has_a_caption_and_a_description(notebook):
    for cell in code(notebook):
        mystnb = cell.metadata.get("mystnb", {})
        if draws_a_figure(cell) or mystnb:
            alt = mystnb.get("image", {}).get("alt", "")
            figure = mystnb.get("figure", {})
            assert len(alt.split()) > 3, f"no alternative text:\n{cell.source}"
            assert len(figure.get("caption", "").split()) > 3, f"no caption:\n{cell.source}"
            assert figure.get("name", "").startswith("fig-"), f"no name:\n{cell.source}"


def test_figure_names_and_glued_names_are_unique():
    names = []
    for path in FILES:
        for cell in code(nbformat.read(path, as_version=4)):
            name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
            names += [name] if name else []
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)


def test_notebooks_are_executed_again_for_code_and_not_for_words():
    plain = 'def f(x):\n    """Twice."""\n    # a comment\n    return 2 * x\n'
    words = "def f(x):\n    '''Two times x.'''\n    return 2*x\n"
    assert without_words(plain) == without_words(words)
    for other in ("return 3 * x", "return (2 * x)()", '"a string" and 2 * x'):
        changed = plain.replace("return 2 * x", other)
        assert without_words(changed) != without_words(plain)
    assert without_words('"""A module."""\nX = 1\n') != without_words('X = "A module."\n')


def test_drawings_are_taken_out_of_the_outputs_in_the_order_of_the_notebook():
    def figure(name, drawing):
        data = {"image/png": "a picture", tool.DRAWING: drawing, "text/plain": "words"}
        cell = nbformat.v4.new_code_cell()
        cell.outputs = [
            nbformat.v4.new_output("stream", text="printed"),
            nbformat.v4.new_output("display_data", data, metadata={tool.DRAWING: {}}),
        ]
        cell.metadata["mystnb"] = {"figure": {"name": name}}
        return cell

    text = nbformat.v4.new_markdown_cell("a text")
    cells = [figure("fig-second-word", "<svg>1</svg>"), text, figure("fig-a", "<svg>2</svg>")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert tool.take_drawings(notebook) == {
        "01-second-word.svg": "<svg>1</svg>",
        "02-a.svg": "<svg>2</svg>",
    }
    for cell in (cells[0], cells[2]):
        assert set(cell.outputs[1].data) == {"image/png", "text/plain"}
        assert not cell.outputs[1].metadata
    assert not tool.take_drawings(notebook)


@pytest.mark.slow
@pytest.mark.skipif(not kernels.CAN_FORK, reason="kernels are forked on Linux only")
def test_a_forked_kernel_gives_what_one_that_is_started_gives(tmp_path, monkeypatch):
    # Where it runs, what it can import and its figures are a fresh kernel's.
    lines = (
        "import os, sys",
        "print(__name__, os.getcwd(), sys.path[1:], os.environ['TQDM_DISABLE'])",
        "import matplotlib.pyplot as plt, torch",
        "from course_lib.plotting import use_style",
        "use_style()",
        "plt.plot(torch.arange(3), label=plt.get_backend())",
        "plt.legend();",
        "print(torch.get_num_threads(), torch.get_default_dtype(), os.environ['MPLBACKEND'])",
    )
    tool.prepare_kernels()
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # and given back
    outputs = []
    for manager in (kernels.AsyncKernelManager, kernels.ForkedKernelManager):
        cells = [nbformat.v4.new_code_cell("\n".join(lines)), nbformat.v4.new_code_cell("print(7)")]
        notebook = nbformat.v4.new_notebook(cells=cells)
        tool.NotebookClient(
            notebook,
            config=tool.EXECUTION,
            kernel_name="python3",
            kernel_manager_class=manager,
            extra_arguments=tool.BOTH_FORMATS,
            resources={"metadata": {"path": str(tmp_path)}},
        ).execute()
        assert list(tool.take_drawings(notebook)) == ["01-figure.svg"]
        # What is printed arrives in one message or in several.
        texts = ["".join(o.get("text", "") for o in cell.outputs) for cell in notebook.cells]
        figures = [o.data["image/png"] for c in notebook.cells for o in c.outputs if "data" in o]
        outputs.append((texts, figures))
    assert outputs[0] == outputs[1]
    assert len(outputs[0][1]) == 1
