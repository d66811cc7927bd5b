"""The frame of every page: one file without scripts or foreign requests."""

from urllib.parse import quote

from course_lib.grading.text import escaped

STYLE = """
:root { color-scheme: light dark; }
body {
  font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 56rem; padding: 0 1rem;
  overflow-wrap: break-word;
}
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #8886; padding: .4rem .6rem; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
meter { width: 8rem; }
td.comment, th.comment { overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  th, td { padding: .4rem .2rem; }
  .counts { font-size: .75rem; }
  .counts th, .counts td { padding: .4rem .1rem; overflow-wrap: anywhere; }
  meter { display: none; }
}
pre { overflow: auto; padding: .6rem; background: #8882; white-space: pre-wrap; }
.note { border-left: .3rem solid #c60; padding: .2rem .8rem; }
"""
UNSAFE = "Graded without isolation (--sandbox none): the points can be forged by hostile code."


def page(title: str, body: str) -> str:
    """A page of the given title, which is escaped here, and body, which is markup."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def question_name(text: str) -> str:
    """A question's name, which a narrow page may break where its words end."""
    return escaped(text).replace("_", "_<wbr>")


def link_to_feedback(student: str) -> str:
    """A student's name that leads to the page with the feedback, from a page beside that folder."""
    address = quote(f"feedback/{student}.html")
    return f'<a href="{address}">{escaped(student)}</a>'
