"""How fast the book is built: every page from executed notebooks, and again with nothing changed.

    python -m benchmarks.book

Notebooks are executed first where they are not (minutes); their own running times are printed then,
and are not part of what is measured here.
"""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build" / "html"


def seconds(*command: str) -> float:
    """Run a command to its end; one that fails ends the benchmark with what it has printed."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - start


def main() -> None:
    """Print seconds and pages per second."""
    seconds("make", "book")
    pages = len(list(SITE.rglob("*.html")))
    size = sum(file.stat().st_size for file in SITE.rglob("*") if file.is_file())
    whole = seconds("make", "--always-make", "--old-file=.venv/.installed", "book")
    unchanged = seconds("make", "book")
    print(f"{pages} pages, {size / 2**20:.0f} MiB; notebooks executed before")
    print(f"all pages anew: {whole:.1f} s, {pages / whole:.1f} pages per second")
    print(f"nothing changed: {unchanged:.1f} s")


if __name__ == "__main__":
    main()
