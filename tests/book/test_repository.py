"""The repository's address: normalized or refused, written everywhere, and nobody's until it is set."""

import re
import runpy
import subprocess
import sys
import types

import nbformat
import notebooks as tool
import pytest
from repository import UNSET, Repository, parse, read

from tests.book.environments import call, copy_checkout

ROOT = tool.ROOT
REPOSITORIES = [
    Repository("ada", "course"),
    Repository("Ada-L", "generative.models_2027", "main"),
    Repository("university", "teaching", "2027/spring", "courses/generative"),
    Repository("octocat_corp", "octocat_corp.github.io", "gh", "dgm"),
]


@pytest.fixture(params=REPOSITORIES, ids=lambda r: f"{r.owner}/{r.name}")
def repository(request):
    return request.param


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/ada/course",
        "https://github.com/ada/course/",
        "https://github.com/ada/course//",
        "https://github.com/ada/course.git",
        "https://github.com/ada/course.git/",
        "http://github.com/ada/course",
        "https://www.github.com/ada/course",
        "https://GitHub.com/ada/course",
        "github.com/ada/course",
        "git@github.com:ada/course.git",
        "git@github.com:ada/course",
        "ssh://git@github.com/ada/course.git",
        "ssh://git@github.com:22/ada/course.git",
        "git://github.com/ada/course.git",
        "https://ada@github.com/ada/course.git",
        "https://ada:token@github.com/ada/course.git",
        "  https://github.com/ada/course\n",
    ],
)
def test_forms_of_one_address_are_one(address):
    assert parse(address) == Repository("ada", "course")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "course",
        "https://github.com/ada",
        "https://github.com/ada/course/tree/main",
        "https://github.com/-ada/course",
        "https://github.com/ada-/course",
        "https://github.com/a--da/course",
        "https://github.com/ada/co urse",
        "https://github.com/ada/..",
        "https://github.com/ada/course?tab=readme",
        "https://github.com/ada/course#readme",
        "https://gitlab.com/ada/course",
        "https://evilgithub.com/ada/course",
        "https://github.com.evil.org/ada/course",
        "file:///srv/course",
        "/srv/github.com/course",
        'https://github.com/ada/course"',
    ],
)
def test_what_is_not_a_repository_on_github_is_refused(address):
    with pytest.raises(ValueError, match=r"https://github\.com/OWNER/NAME is expected"):
        parse(address)


@pytest.mark.parametrize("branch", ["", "a b", "a#b", "a..b", "/a", "a/", "ä", "a\nb"])
def test_a_branch_that_a_link_could_not_hold_is_refused(branch):
    with pytest.raises(ValueError, match="branch"):
        parse("https://github.com/ada/course", branch)


def test_the_address_of_nobody_cannot_be_registered():
    """GitHub's names begin with a letter or a digit: the same address typed by hand is refused."""
    assert not parse(UNSET).is_set
    with pytest.raises(ValueError, match="not the address"):
        parse(f"{UNSET}.git")


def links(text):
    return re.findall(r"https://[^\s)\"<>`]*github[^\s)\"<>`]*", text)


def test_every_link_of_the_readme_leads_to_a_file(repository):
    text = tool.readme((ROOT / "README.md").read_text(encoding="utf-8"), repository)
    opened = [link for link in links(text) if "colab" in link]
    assert len(opened) == len(tool.notebooks())
    start = repository.colab("")
    for link in opened:
        assert (ROOT / link.removeprefix(start).lstrip("/")).is_file(), link
    for link in links(text):
        assert f"{repository.owner}/{repository.name}" in link, link
    inside = f"{repository.name}/{repository.folder}".rstrip("/")
    assert f"git clone -b {repository.branch} {repository.url} && cd {inside}\n" in text
    assert repository.requirement in text


def test_setting_another_address_leaves_nothing_of_the_first(repository):
    first = Repository("first-owner", "first-name", "first-branch", "first/folder")
    for name, written in (
        ("README.md", tool.readme),
        ("CITATION.cff", tool.citation),
        ("_config.yml", tool.configuration),
    ):
        text = (ROOT / name).read_text(encoding="utf-8")
        directly = written(text, repository)
        assert written(written(text, first), repository) == directly
        assert written(directly, repository) == directly
        assert "first-" not in directly
        unset = written(text, parse(UNSET))
        assert written(directly, parse(UNSET)) == unset


def test_the_configuration_is_read_as_it_is_written(repository, tmp_path):
    text = (ROOT / "_config.yml").read_text(encoding="utf-8")
    path = tmp_path / "_config.yml"
    path.write_text(tool.configuration(text, repository), encoding="utf-8")
    assert read(path) == repository
    assert path.read_text().count("\n") == text.count("\n")


def test_the_stored_files_hold_the_configured_address():
    now = tool.repository()
    for name, written in (("README.md", tool.readme), ("CITATION.cff", tool.citation)):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert written(text, now) == text, f"{name}: run python tools/notebooks.py sync"
    for path in tool.students():
        first = next(c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
        assert first.source == tool.setup_cell(now)


def test_nothing_leads_to_an_address_that_nobody_owns():
    """As long as it is not set: no badge, no link, no installation."""
    unset = parse(UNSET)
    for name, written in (("README.md", tool.readme), ("CITATION.cff", tool.citation)):
        text = written((ROOT / name).read_text(encoding="utf-8"), unset)
        assert not [link for link in links(text) if "pytorch" not in link]
        assert "git+" not in text
    assert "github.com" not in tool.setup_cell(unset)


def run_setup(cell, monkeypatch, *, installed):
    """Execute a set-up cell as Colab would; return the commands that it called."""
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    found = object() if installed else None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    called = []
    monkeypatch.setattr("subprocess.run", lambda command, check: called.append(command))
    exec(compile(cell, "set-up", "exec"), {})
    return called


def test_the_setup_cell_installs_from_the_owners_address(repository, monkeypatch):
    cell = tool.setup_cell(repository)
    ((*_, requirement),) = run_setup(cell, monkeypatch, installed=False)
    assert requirement == repository.requirement
    assert run_setup(cell, monkeypatch, installed=True) == []


def test_the_setup_cell_without_an_address_says_what_to_do(monkeypatch):
    cell = tool.setup_cell(parse(UNSET))
    with pytest.raises(RuntimeError, match=r"tools/notebooks\.py sync"):
        run_setup(cell, monkeypatch, installed=False)
    assert run_setup(cell, monkeypatch, installed=True) == []
    monkeypatch.delitem(sys.modules, "google.colab")
    exec(compile(cell, "set-up", "exec"), {})  # nothing happens on one's own machine


def git(folder, *arguments):
    identity = ("-c", "user.name=course", "-c", "user.email=course@localhost")
    return call("git", *identity, *arguments, cwd=folder)


def test_a_clone_takes_the_address_from_its_remote(tmp_path, monkeypatch, capsys):
    """In a folder with a space, below the root of the repository, on a branch of its own."""
    root = tmp_path / "a clone"
    folder = root / "courses" / "dgm"
    copy_checkout(folder)
    git(root, "init", "-q", "-b", "spring")
    tool_of_it = folder / "tools" / "notebooks.py"
    monkeypatch.setattr(sys, "argv", [str(tool_of_it), "sync"])
    monkeypatch.setattr(sys, "path", sys.path.copy())  # to which it adds

    def sync():
        # Run here: a process of its own would first import for seconds what is imported here.
        runpy.run_path(str(tool_of_it), run_name="__main__")

    git(root, "commit", "-q", "--allow-empty", "-m", "Empty")
    unset = tool.configuration((ROOT / "_config.yml").read_text(encoding="utf-8"), parse(UNSET))
    (folder / "_config.yml").write_text(unset, encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        sync()
    assert ended.value.code == 2
    assert "no remote" in capsys.readouterr().err
    git(root, "remote", "add", "origin", "git@github.com:ada/teaching.git")
    sync()
    expected = Repository("ada", "teaching", "spring", "courses/dgm")
    assert read(folder / "_config.yml") == expected
    for path in [*folder.glob("book/**/*.ipynb"), *folder.glob("assignments/*/student/*.ipynb")]:
        first = next(c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
        assert expected.requirement in first.source
    assert expected.colab("book/vae/vae.ipynb") in (folder / "README.md").read_text()
    # One that is set stays, whatever the remote is.
    git(root, "remote", "set-url", "origin", "https://gitlab.com/ada/teaching")
    sync()
    assert read(folder / "_config.yml") == expected


def test_one_process_at_a_time_under_a_lock(tmp_path):
    code = (
        "import pathlib, time; p = pathlib.Path('busy'); p.touch(exist_ok=False); "
        "time.sleep(0.3); p.unlink()"
    )
    command = [
        sys.executable,
        ROOT / "tools" / "alone.py",
        "x.lock",
        "--",
        sys.executable,
        "-c",
        code,
    ]
    several = [subprocess.Popen(command, cwd=tmp_path) for _ in range(3)]
    assert [process.wait() for process in several] == [0, 0, 0]
    failing = [*command[:4], sys.executable, "-c", "raise SystemExit(7)"]
    assert subprocess.run(failing, cwd=tmp_path).returncode == 7
