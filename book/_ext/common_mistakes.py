"""Gathers the "Common mistakes" of every chapter on one page, and links chapters named by number.

``{common-mistakes}`` shows the sections of that title from all pages, each under a link to where
it stands: one list for looking up, with no second copy to keep. The role ``chapter`` with the
text 3 is a link to chapter 3 of the table of contents, wherever that stands; ``chapter-start`` is
the same with a capital, for the start of a sentence (docutils reads the names of roles without case).
"""

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective, SphinxRole

TITLE = "Common mistakes"


class CommonMistakes(nodes.General, nodes.Element):
    """Where the gathered sections are to stand."""


class CommonMistakesDirective(SphinxDirective):
    """Show the sections "Common mistakes" of all chapters."""

    def run(self) -> list[nodes.Node]:
        """Leave a place; other pages may not be read yet."""
        self.env.mistake_pages.add(self.env.docname)
        return [CommonMistakes()]


class ChapterRole(SphinxRole):
    """A link to a chapter by its number."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Leave a reference that is resolved when all numbers are known."""
        number = self.text.strip()
        word = "Chapter" if self.name == "chapter-start" else "chapter"
        text = nodes.inline("", f"{word} {number}")
        reference = addnodes.pending_xref(
            "",
            text,
            refdomain="",
            reftype="chapter",
            reftarget=number,
            refwarn=True,
            refdoc=self.env.docname,
            refexplicit=True,
        )
        return [reference], []


def chapter_pages(app: Sphinx) -> dict[str, str]:
    """Pages by the number that the table of contents gives them."""
    return {
        str(numbers[""][0]): name
        for name, numbers in app.env.toc_secnumbers.items()
        if len(numbers.get("", ())) == 1
    }


def link_chapter(app: Sphinx, env: object, node: nodes.Element, inside: nodes.Node) -> object:
    """Resolve ``{chapter}`` references."""
    if node["reftype"] != "chapter":
        return None
    page = chapter_pages(app).get(node["reftarget"])
    if page is None:
        return None
    address = app.builder.get_relative_uri(node["refdoc"], page)
    return nodes.reference("", "", inside, refuri=address, internal=True)


def note_page(app: Sphinx, doctree: nodes.document) -> None:
    """Remember which pages have the section."""
    for section in doctree.findall(nodes.section):
        title = section.next_node(nodes.title)
        if title is not None and title.parent is section and title.astext() == TITLE:
            app.env.mistakes[app.env.docname] = section["ids"][0]


class Gather(SphinxPostTransform):
    """Put copies of the sections in their place, in the order of the table of contents."""

    default_priority = 5  # before references are resolved, those of the copies too

    def run(self, **kwargs: object) -> None:
        """Replace each place on the page."""
        for place in list(self.document.findall(CommonMistakes)):
            found: list[nodes.Node] = []
            for page in self.env.pages_in_order:
                if page in self.env.mistakes and page not in self.env.mistake_pages:
                    found += self.copied(page)
            place.replace_self(found)
            # The page's own source has no formulas, but now it needs MathJax.
            self.env.get_domain("math").data["has_equations"][self.env.docname] = True

    def copied(self, page: str) -> list[nodes.Node]:
        """A heading that links to the section of a page, and a copy of what stands in it."""
        docname, anchor = self.env.docname, self.env.mistakes[page]
        tree = self.env.get_doctree(page)
        section = next(s for s in tree.findall(nodes.section) if anchor in s["ids"])
        # The chapter's name is the title of the first page in its folder.
        folder = page.rpartition("/")[0]
        first = next(p for p in self.env.pages_in_order if p.rpartition("/")[0] == folder)
        address = f"{self.app.builder.get_relative_uri(docname, page)}#{anchor}"
        title = nodes.strong("", self.env.titles[first].astext())
        heading = nodes.paragraph("", "", nodes.reference("", "", title, refuri=address))
        content = [child.deepcopy() for child in section.children[1:]]
        for child in content:
            for node in child.findall(nodes.Element):
                node["ids"] = []  # the anchors stay with the original
                if isinstance(node, addnodes.pending_xref):
                    node["refdoc"] = docname
        return [heading, *content]


def prepare(app: Sphinx) -> None:
    """Start with nothing gathered."""
    for name, empty in (("mistakes", dict), ("mistake_pages", set)):
        if not hasattr(app.env, name):
            setattr(app.env, name, empty())


def order_pages(app: Sphinx, env: object) -> list[str]:
    """List the pages as the table of contents does; pages that gather are written again."""
    ordered: list[str] = []

    def visit(page: str) -> None:
        ordered.append(page)
        for below in env.toctree_includes.get(page, ()):
            visit(below)

    visit(app.config.root_doc)
    env.pages_in_order = ordered
    return sorted(env.mistake_pages)


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.add_node(CommonMistakes)
    app.add_directive("common-mistakes", CommonMistakesDirective)
    for name in ("chapter", "chapter-start"):
        app.add_role(name, ChapterRole())
    app.connect("builder-inited", prepare)
    app.connect("doctree-read", note_page)
    app.connect("env-updated", order_pages)
    app.connect("missing-reference", link_chapter)
    app.add_post_transform(Gather)
    return {"version": "1", "parallel_read_safe": False}
