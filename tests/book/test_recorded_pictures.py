"""Pictures of recorded runs on pages: what has been run is shown with its provenance, and nothing else."""

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import recorded_pictures
from recorded_pictures import Line, parse
from sphinx.cmd.build import build_main

from course_lib.experiments import RECIPES, STUDIES, read_records, read_study
from course_lib.experiments.page_decoder import RECORD
from course_lib.experiments.pictures import picture_path
from course_lib.experiments.tables import source_rows

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
VAE = "mnist-VAE-source-seed0"
DIRECTIVE = re.compile(r"^```\{results-pictures\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGE = f"""# A page

```{{results-pictures}}
:alt: rows of digits
:name: fig-one
{VAE} samples: at the end
{VAE} curves: the bound
mnist-VAE-never-seed0 samples: never run
{VAE} no-such-picture: never drawn

Look at *this*.
```

```{{results-pictures}}
:alt: rows of digits
mnist-VAE-never-seed0 samples: never run

Nothing is claimed.
```
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Builds a page; returns its tree."""
    shutil.copytree(RESULTS, tmp_path / "results")
    monkeypatch.setattr(recorded_pictures, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(recorded_pictures, "CURVES", tmp_path / "_build" / "figures" / "recorded")
    (tmp_path / "conf.py").write_text(
        'extensions = ["myst_parser", "recorded_pictures"]\nexclude_patterns = ["_build"]\n'
    )

    def build(text):
        (tmp_path / "index.md").write_text(text, encoding="utf-8")
        assert build_main(["-q", "-W", "-b", "xml", str(tmp_path), str(tmp_path / "xml")]) == 0
        return ElementTree.parse(tmp_path / "xml" / "index.xml")

    return build


def test_what_has_been_run_is_shown_and_says_where_it_comes_from(build):
    (figure,) = build(PAGE).iter("figure")
    assert "fig-one" in figure.get("names")
    images = list(figure.iter("image"))
    assert [image.get("uri") for image in images] == [
        f"results/{VAE}-samples.png",
        f"_build/figures/recorded/{VAE}-curves.svg",
    ]
    assert [image.get("alt") for image in images] == [
        "Panel 1 of the figure: at the end. rows of digits",
        "Panel 2 of the figure: the bound",
    ]
    assert [p.text for p in figure.iter("paragraph")] == ["at the end", "the bound"]
    caption = "".join(figure.find("caption").itertext())
    (record,) = read_records(RESULTS, model="VAE", budget="source")
    _, metric = record.tightest
    assert caption.startswith("Look at this.")
    for part in (f"{metric.value:.2f} ± ", record.command, record.commit[:7], "1 core"):
        assert part in caption


def test_the_plane_stands_on_a_page_without_a_notebook(build):
    """With its record, and with a picture where no script runs."""
    tree = build("# A page\n\n```{recorded-plane}\nMove the ring\nslowly.\n```\n")
    element, opening, closing = tree.iter("raw")
    assert element.get("format") == "html"
    assert 'id="recorded-plane"' in element.text
    assert "course-plane" not in element.text  # the name that a notebook's own plane has
    assert "<figcaption>Move the ring slowly.</figcaption>" in element.text
    assert '"half":true' in element.text
    assert opening.text.startswith("<noscript")
    assert closing.text == "</noscript>"
    (still,) = tree.iter("image")
    assert still.get("uri") == f"results/{RECORD}-manifold.png"
    assert still.get("alt")
    (record,) = [record for record in read_records(RESULTS) if record.name == RECORD]
    (source,) = (p for p in tree.iter("paragraph") if p.get("classes") == "provenance")
    for part in (record.command, record.commit[:7], "1 core"):
        assert part in "".join(source.itertext())


def test_a_gallery_shows_what_has_been_run_or_what_stands_in_its_place(build):
    tree = build(f"""# A page

```{{gallery}}
- record: {VAE}
  picture: samples
  alt: forty digits
  text: Digits of a *VAE*.
- record: mnist-VAE-never-seed0
  picture: samples
  alt: never drawn
  text: Never shown.
- record: mnist-VAE-never-seed0
  picture: samples
  alt: never drawn
  text: Others.
  instead:
    record: {RECORD}
    alt: a plane of digits
    picture: manifold
```
""")
    images = [(image.get("uri"), image.get("alt")) for image in tree.iter("image")]
    assert images == [
        (f"results/{VAE}-samples.png", "forty digits"),
        (f"results/{RECORD}-manifold.png", "a plane of digits"),
    ]
    words = ["".join(p.itertext()) for p in tree.iter("paragraph")]
    runs = {record.name: record.command for record in read_records(RESULTS)}
    assert words == ["Digits of a VAE.", runs[VAE], "Others.", runs[RECORD]]


def test_curves_are_those_of_the_record(build, tmp_path):
    build(PAGE)
    drawn = (tmp_path / "_build" / "figures" / "recorded" / f"{VAE}-curves.svg").read_text("utf-8")
    (record,) = read_records(RESULTS, model="VAE", budget="source")
    paths = re.findall(r'<path d="([^"]+)" clip-path', drawn)
    assert [path.count("L") for path in paths[:2]] == [39, 39]
    for word in ("training images", "validation images"):
        assert word in drawn or "<text" not in drawn  # words may be drawn as paths
    assert len(record.curves["train"]) == 40


def test_a_line_is_a_record_a_picture_and_what_it_is():
    lines = ["a-seed0 samples: at the end: all", "", "Look.", "Here."]
    assert parse(lines) == ([Line("a-seed0", "samples", "at the end: all")], ["Look.", "Here."])
    with pytest.raises(ValueError, match="is expected"):
        parse(["a-seed0: at the end"])


def directives():
    """All of the book: page, options, lines and caption."""
    for page in sorted(ROOT.glob("book/**/*.md")):
        for body in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            options = dict(re.findall(r"^:(\w+): (.+)$", body, re.MULTILINE))
            rest = re.sub(r"^:\w+:.*\n", "", body, flags=re.MULTILINE)
            yield page, options, *parse(rest.splitlines())


@pytest.mark.parametrize(
    ("page", "options", "lines", "caption"),
    [pytest.param(*d, id=f"{d[0].parent.name}-{d[1]['name']}") for d in directives()],
)
def test_every_line_of_the_book_names_what_can_be_run(page, options, lines, caption):
    """A record that is there has each picture; one that is not is that of a recipe or a study."""
    assert len(options["alt"].split()) > 5
    assert len(" ".join(caption).split()) > 5
    runs = {f"{data}-{model}-{budget}-seed0" for data, model, budget in RECIPES}
    records = {record.name: record for record in read_records(RESULTS)}
    for line in lines:
        assert line.record in runs or line.record in STUDIES
        record = records.get(line.record)
        if line.record in STUDIES:
            record = read_study(RESULTS, line.record)
        if record is None or not record.pictures:
            continue
        if line.picture.endswith("curves"):
            assert recorded_pictures.curves_of(record, line.picture)
        else:
            assert picture_path(RESULTS, record.name, line.picture).exists(), line
    # A figure may be missing until it is run: no text refers to it by number.
    for other in ROOT.glob("book/**/*.md"):
        assert f"{{numref}}`{options['name']}`" not in other.read_text(encoding="utf-8")


def test_every_family_has_its_pictures_in_its_chapter_and_in_the_comparison():
    shown = {page.parent.name for page, *_ in directives()}
    families = {"autoregressive", "vae", "gan", "flow", "diffusion", "flow_matching"}
    assert shown == {*families, "comparison"}


def test_the_table_of_the_sources_has_expected_beside_found():
    records = read_records(RESULTS)
    stability = read_study(RESULTS, "gan_stability")
    header, *rows = source_rows(records, read_study(RESULTS, "gan_source"), stability)
    assert header[1:3] == ["expected", "found here"]
    assert all(len(row) == len(header) for row in rows)
    experiments = [row[0] for row in rows]
    assert "VAE 784–500–20" in experiments
    assert "VAE 784–500–2" in experiments
    (slow,) = [row for row in rows if "rate 1e-5" in row[0]]
    assert slow[1] == "near 0.024 nats"
    values = [
        sum(row["kl_histogram"]) / len(row["kl_histogram"])
        for row in stability.rows
        if row["learning_rate"] == 1e-5 and row["target"] == "Gaussian"
    ]
    for found, value in zip(slow[2].split("; "), sorted(values), strict=True):
        assert float(found.split(": ")[1].split(" ")[0]) == pytest.approx(value, rel=0.05)
    assert len(source_rows([], None, None)) == 1


def test_the_rows_of_the_game_say_where_its_equilibrium_is():
    game = {
        "method": "as in the source", "real_label": 0.9, "frechet": [10.0, 12.0],
        "coverage": [0.5, 0.7],
        "curves": {"discriminator/real": [[1, 0.8]], "discriminator/fake": [[1, 0.2]]},
    }  # fmt: skip
    made = read_study(RESULTS, "gan_stability")
    made = type(made)(**{**vars(made), "study": "gan_source", "rows": [game]})
    _, row = source_rows([], made, None)
    assert row[0] == "GAN, as in the source"
    assert row[1].startswith("at the equilibrium D = 0.45 on all images")
    assert "D = 0.800 on real and 0.200 on generated" in row[2]
    assert "Fréchet distance 11.00 ± 1.41, coverage 0.60 ± 0.14" in row[2]
