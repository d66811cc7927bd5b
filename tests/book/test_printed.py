"""The printed book knows every macro of the formulas, with as many arguments."""

from pathlib import Path

import printed
import yaml

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "_config.yml").read_text())["sphinx"]["config"]


def test_every_macro_of_the_pages_is_one_of_the_printed_book():
    macros = CONFIG["mathjax3_config"]["tex"]["macros"]
    lines = printed.preamble(macros).splitlines()
    assert len(lines) == 2 * len(macros)
    for name, macro in macros.items():
        body, arguments = (macro, 0) if isinstance(macro, str) else macro
        # Provided first: some names exist in LaTeX and some do not.
        line = rf"\providecommand{{\{name}}}{{}}"
        assert lines[lines.index(line) + 1] == rf"\renewcommand{{\{name}}}[{arguments}]{{{body}}}"
        used = {int(digit) for digit in "123456789" if f"#{digit}" in body}
        assert used == set(range(1, arguments + 1)), name
