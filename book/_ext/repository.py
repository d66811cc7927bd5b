"""The repository's public address, as ``_config.yml`` names it, and every link that follows from it.

As long as nobody has set an address, it is one that GitHub gives to nobody: a set-up cell that
installed from a free name would run the code of whoever registers it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

HOST = "https://github.com/"
COLAB = "https://colab.research.google.com/"
# A name on GitHub never starts with a hyphen, so this one cannot be registered.
UNSET = f"{HOST}-your-account-/course"
HOW_TO_SET = "python tools/notebooks.py sync https://github.com/OWNER/NAME"

# https://github.com/OWNER/NAME as people paste it: a page, a remote of git, with or without .git.
ADDRESS = re.compile(
    r"(?:https?://|ssh://|git://)?(?:[\w.-]+(?::[^@/]*)?@)?(?:www\.)?github\.com(?::\d+)?[:/]+"
    r"(?P<owner>[^/]+)/(?P<name>[^/?#]+?)(?:\.git)?/*",
    re.IGNORECASE,
)
OWNER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_]|-(?=[A-Za-z0-9]))*")
NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]+")
# What links, git and pip all read alike.
PATH = re.compile(r"(?!.*(?://|\.\.|^/|/$|\.lock$))[A-Za-z0-9._+/-]+")


@dataclass(frozen=True)
class Repository:
    """Where the course is published.

    Attributes:
        owner: account on GitHub.
        name: name of the repository there.
        branch: the branch that readers get.
        folder: where the course lies below the root of the repository; empty for the root itself.
    """

    owner: str
    name: str
    branch: str = "main"
    folder: str = ""

    @property
    def url(self) -> str:
        """The address, as a browser and git read it."""
        return f"{HOST}{self.owner}/{self.name}"

    @property
    def is_set(self) -> bool:
        """Whether somebody owns the address."""
        return self.url != UNSET

    def page(self, path: str) -> str:
        """The page of a file on GitHub."""
        return f"{self.url}/blob/{self._at(path)}"

    def colab(self, path: str) -> str:
        """A notebook, opened on Colab."""
        return f"{COLAB}github/{self.owner}/{self.name}/blob/{self._at(path)}"

    @property
    def requirement(self) -> str:
        """The library, as pip installs it from here."""
        where = f"#subdirectory={self.folder}" if self.folder else ""
        return f"course-lib @ git+{self.url}@{self.branch}{where}"

    @property
    def site(self) -> str:
        """Where GitHub Pages serves the book, ending in a slash."""
        host = f"{self.owner.lower()}.github.io"
        return f"https://{host}/" if self.name.lower() == host else f"https://{host}/{self.name}/"

    def _at(self, path: str) -> str:
        return "/".join(part for part in (self.branch, self.folder, path) if part)


def parse(address: str, branch: str = "main", folder: str = "") -> Repository:
    """Read an address in any of the forms in which GitHub and git show it.

    Args:
        address: ``https://github.com/OWNER/NAME``, with a slash or ``.git`` behind it, or as a remote
            (``git@github.com:OWNER/NAME.git``).
        branch: the branch that readers get.
        folder: where the course lies below the root of the repository.

    Raises:
        ValueError: it names no repository on GitHub, or a link could not hold the branch or folder.
    """
    folder = folder.strip("/")
    if address == UNSET:
        return Repository(*UNSET.removeprefix(HOST).split("/"), branch, folder)
    read = ADDRESS.fullmatch(address.strip())
    if not read or not OWNER.fullmatch(read["owner"]) or not NAME.fullmatch(read["name"]):
        raise ValueError(
            f"{address!r} is not the address of a repository on GitHub, from where Colab opens notebooks; "
            f"https://github.com/OWNER/NAME is expected."
        )
    for what, value in (("branch", branch), ("folder", folder)):
        if (value and not PATH.fullmatch(value)) or (what == "branch" and not value):
            raise ValueError(
                f"the {what} is {value!r}; letters, digits and . _ + - / are expected, which links, "
                f"git and pip read alike. Rename it."
            )
    return Repository(read["owner"], read["name"], branch, folder)


def read(configuration: Path) -> Repository:
    """Read the address of a ``_config.yml``.

    Raises:
        ValueError: what stands there is not an address.
    """
    entry = yaml.safe_load(configuration.read_text(encoding="utf-8"))["repository"]
    try:
        return parse(entry["url"], entry["branch"], entry.get("path_to_book") or "")
    except ValueError as error:
        raise ValueError(f"repository.url of {configuration.name}: {error}") from error
