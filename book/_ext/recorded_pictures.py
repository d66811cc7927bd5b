"""The directives ``results-pictures``, ``gallery`` and ``recorded-plane``: what recorded runs look like.

    ```{results-pictures}
    :alt: what is drawn, for those who do not see it
    :name: fig-of-the-page
    mnist-VAE-source-seed0 samples-0: before training
    mnist-VAE-source-seed0 samples: at the end
    mnist-VAE-source-seed0 curves: the bound

    What to see in it.
    ```

Each line names a record, one of its pictures, or its curves, and says what it is. Behind the caption stand
the numbers, the settings, the time and the hardware of each record, which nobody types. What has not been run
is not shown, and without any picture there is no figure; so no text refers to it by number.

    ```{gallery}
    - record: mnist-Glow-cpu-seed0
      picture: samples
      alt: what is drawn, for those who do not see it
      text: What it is, with a link to its chapter.
      instead:
        drawing: /_build/figures/flow/change-of-variables.svg
        alt: …
    ```

shows pictures beside one another, each with a text and the command that makes it again. What is said under
``instead`` holds as long as the record has no such picture; without that there is no tile.

    ```{recorded-plane}
    What to do with it.
    ```

is the latent plane of a recorded model, decoded in the page; its text is the caption, behind which stands the
provenance. Without a script there is a picture of the plane in its place, and on paper nothing.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
CURVES = ROOT / "_build" / "figures" / "recorded"
WIDTH, HEIGHT = 360, 200  # of a panel of drawn curves, in pixels of a page
PRINTED = "200px"  # width of each on paper; on a page the style says it
WORDS = {
    "train": "training images",
    "validation": "validation images",
    "discriminator/loss": "discriminator",
    "generator/loss": "generator",
    "discriminator/real": "real images",
    "discriminator/fake": "generated images",
}


@dataclass(frozen=True)
class Line:
    """One line of the directive.

    Attributes:
        record: name of a record.
        picture: name of one of its pictures, or of curves: ``curves`` or ``METHOD-curves`` of a study.
        label: what stands above it.
    """

    record: str
    picture: str
    label: str


def parse(lines: list[str]) -> tuple[list[Line], list[str]]:
    """The lines that name pictures, and those of the caption, after an empty one."""
    end = lines.index("") if "" in lines else len(lines)
    found = []
    for line in lines[:end]:
        names, colon, label = line.partition(": ")
        if len(names.split()) != 2 or not colon:
            raise ValueError(f"{line!r}: 'RECORD PICTURE: what it is' is expected.")
        found.append(Line(*names.split(), label.strip()))
    return found, lines[end + 1 :]


def curves_of(record: object, picture: str) -> dict[str, list[list[float]]]:
    """The curves of a run, or of one method of a study: pairs of step and value by name."""
    if picture == "curves":
        return record.curves
    key = picture.removesuffix("-curves")
    (row,) = [row for row in record.rows if row["key"] == key]
    return row["curves"]


def draw_curves(record: object, picture: str) -> str:
    """Draw the curves of a record; return where, from the root of the book.

    Losses above, and where there are any what the discriminator says, probabilities, below.
    """
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt
    from course_lib.plotting import use_style

    curves = curves_of(record, picture)
    panels = {
        "loss, nats": [n for n in curves if n in ("train", "validation") or n.endswith("/loss")],
        "mean D": [n for n in curves if n.endswith(("/real", "/fake"))],
    }
    panels = {label: names for label, names in panels.items() if names}
    with mpl.rc_context({"svg.hashsalt": f"{record.name}-{picture}"}):
        use_style()
        size = WIDTH / 80, len(panels) * HEIGHT / 80
        figure, axes = plt.subplots(len(panels), figsize=size, squeeze=False, layout="constrained")
        for ax, (label, names) in zip(axes[:, 0], panels.items(), strict=True):
            for name, style in zip(names, ("-", "--", ":"), strict=False):
                steps, values = zip(*curves[name], strict=True)
                ax.plot(steps, values, style, label=WORDS.get(name, name))
            ax.set(xlabel="step", ylabel=label)
            ax.legend(fontsize=10)
            ax.xaxis.set_major_locator(plt.MaxNLocator(3))
        CURVES.mkdir(parents=True, exist_ok=True)
        path = CURVES / f"{record.name}-{picture}.svg"
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return f"/_build/figures/recorded/{path.name}"


class ResultsPictures(SphinxDirective):
    """Pictures of recorded runs with their provenance."""

    has_content = True
    option_spec = {  # noqa: RUF012
        "alt": directives.unchanged_required,
        "name": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        """Build the figure, of what there is."""
        from course_lib.experiments import read_records, read_study
        from course_lib.experiments.pictures import picture_path
        from course_lib.experiments.studies import STUDIES
        from course_lib.experiments.tables import provenance

        for path in RESULTS.glob("*.json"):
            self.env.note_dependency(str(path))
        try:
            lines, caption = parse(list(self.content))
        except ValueError as error:
            raise self.error(f"results-pictures: {error}") from error
        if "alt" not in self.options:
            raise self.error("results-pictures: :alt: says in words what is drawn.")
        records = {record.name: record for record in read_records(RESULTS)}
        records |= {name: found for name in STUDIES if (found := read_study(RESULTS, name))}
        shown, used = nodes.container(classes=["recorded-pictures"]), {}
        for line in lines:
            record = records.get(line.record)
            if record is None:
                continue
            if line.picture.endswith("curves"):
                uri = draw_curves(record, line.picture)
            elif line.picture in record.pictures:
                path = picture_path(RESULTS, record.name, line.picture)
                uri = f"/results/{path.name}"
            else:
                continue
            used[line.record] = record
            label = nodes.paragraph("", line.label, classes=["label"])
            # What all of them show is said once, to whoever hears the page read.
            alt = f"Panel {len(shown) + 1} of the figure: {line.label}"
            if not len(shown):
                alt += f". {self.options['alt']}"
            image = nodes.image(uri=uri, alt=alt, width=PRINTED)
            kind = "drawn" if uri.endswith(".svg") else "pixels"
            shown += nodes.container("", label, image, classes=[kind])
        if not used:
            return []
        text = " ".join(line.strip() for line in caption if line.strip())
        text += "".join(f" {provenance(record)}" for record in used.values())
        inline, messages = self.parse_inline(text)
        figure = nodes.figure("", shown, nodes.caption(text, "", *inline))
        figure["align"] = "default"
        self.set_source_info(figure)
        self.add_name(figure)
        return [figure, *messages]


class Gallery(SphinxDirective):
    """Pictures beside one another, each with a text."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Build the tiles; what has not been run has none."""
        from course_lib.experiments import read_records, read_study
        from course_lib.experiments.pictures import picture_path
        from course_lib.experiments.studies import STUDIES

        records = {record.name: record for record in read_records(RESULTS)}
        records |= {name: found for name in STUDIES if (found := read_study(RESULTS, name))}
        shown = nodes.container(classes=["gallery"])
        for tile in yaml.safe_load("\n".join(self.content)):
            record = records.get(tile.get("record"))
            if record is None or tile["picture"] not in record.pictures:
                if "instead" not in tile:
                    continue
                tile = {**tile, "record": None, **tile["instead"]}
                record = records.get(tile["record"])
            uri = tile.get("drawing") or (
                f"/results/{picture_path(RESULTS, record.name, tile['picture']).name}"
            )
            image = nodes.image(uri=uri, alt=tile["alt"], width=PRINTED, classes=["no-scaled-link"])
            text = nodes.container()
            self.state.nested_parse(
                StringList([tile["text"]], self.env.docname), self.content_offset, text
            )
            kind = "drawn" if uri.endswith(".svg") else "pixels"
            shown += nodes.container("", image, *text, classes=[kind])
            if record is not None:
                command = nodes.literal(record.command, record.command)
                shown[-1] += nodes.paragraph("", "", command, classes=["provenance"])
        return [shown] if len(shown) else []


class RecordedPlane(SphinxDirective):
    """The latent plane of the recorded model with two dimensions, to drag."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Build the element, its provenance, and what stands for it without a script."""
        from course_lib.experiments import read_records
        from course_lib.experiments.page_decoder import RECORD, decoder_path, read_decoder
        from course_lib.experiments.pictures import picture_path
        from course_lib.experiments.tables import provenance
        from course_lib.widgets import latent_plane

        path = decoder_path(RESULTS)
        (record,) = [record for record in read_records(RESULTS) if record.name == RECORD]
        for source in (path, *RESULTS.glob(f"{RECORD}.json")):
            self.env.note_dependency(str(source))
        stored = read_decoder(path)
        element = latent_plane(
            stored.decoder,
            image_shape=(28, 28),
            points=stored.points,
            labels=stored.labels,
            half_precision=True,
            alt="The latent plane of a model of handwritten digits: a coloured dot for each of some images, "
            "and a ring to move.",
            caption=" ".join(line.strip() for line in self.content),
        )
        # Elements count from 1 in the process that makes them: a notebook's page may have that name already.
        markup = re.sub(r"\bcourse-plane-\d+\b", "recorded-plane", element.markup)
        still = nodes.image(
            uri=f"/results/{picture_path(RESULTS, RECORD, 'manifold').name}",
            alt="Ten by ten digits that change gradually into one another, decoded at quantiles of the prior",
            width="100%",
            classes=["no-scaled-link"],
        )
        inline, messages = self.parse_inline(provenance(record).strip())
        shown = addnodes.only(
            "",
            nodes.raw("", markup, format="html"),
            nodes.raw("", '<noscript class="recorded-plane">', format="html"),
            still,
            nodes.raw("", "</noscript>", format="html"),
            nodes.paragraph("", "", *inline, classes=["provenance"]),
            expr="not latex",
        )
        return [shown, *messages]


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.add_directive("results-pictures", ResultsPictures)
    app.add_directive("gallery", Gallery)
    app.add_directive("recorded-plane", RecordedPlane)
    return {"version": "1", "parallel_read_safe": True}
