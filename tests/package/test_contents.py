"""What is in the sdist and in the wheel, and what their metadata say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes, message_from_string
from typing import TYPE_CHECKING

import pytest
from trove_classifiers import classifiers

from conftest import ROOT, run

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
PACKAGES = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
NAME = f"anyio_streamkit-{PROJECT['version']}"


def tracked(*paths: str) -> set[str]:
    """List the files of the repository, or of what an sdist was unpacked to."""
    listed = subprocess.run(
        ["git", "ls-files", *paths], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(listed.stdout.split())


@pytest.fixture
def metadata(wheel: dict[str, str]) -> Message:
    return message_from_string(wheel[f"{NAME}.dist-info/METADATA"])


def test_names(built: tuple[Path, Path]) -> None:
    """Package: both bear the version of pyproject.toml, and the wheel goes everywhere."""
    assert [file.name for file in built] == [f"{NAME}.tar.gz", f"{NAME}-py3-none-any.whl"]


def test_sdist(sdist: set[str]) -> None:
    """Package: the sdist has every file of the repository, so that its tests run, and no other."""
    assert sdist == tracked() | {"PKG-INFO"}


def test_wheel(wheel: dict[str, str]) -> None:
    """Package: the wheel has the package, with its mark for type checkers, and the license."""
    code = {name for name in wheel if not name.startswith(f"{NAME}.dist-info/")}
    assert code == tracked(*PACKAGES)
    assert "streamkit/py.typed" in code
    about = {name.partition("/")[2] for name in wheel} - {name.partition("/")[2] for name in code}
    plugins = {"entry_points.txt"} if "entry-points" in PROJECT else set[str]()
    assert about == {"METADATA", "WHEEL", "RECORD", "licenses/LICENSE"} | plugins


def test_what_pypi_shows(built: tuple[Path, Path]) -> None:
    """Package: PyPI takes both, and can show the README."""
    assert run(sys.executable, "-m", "twine", "check", "--strict", *built).count("PASSED") == 2


def test_what_knows_no_address(metadata: Message) -> None:
    """Package: only a release has addresses; elsewhere no link leads into the repository."""
    is_release = "STREAMKIT_REPOSITORY" in os.environ
    assert bool(metadata.get_all("Project-URL")) is is_release
    assert bool(links(metadata)) is is_release
    assert "## Which do I need?" in text_of(metadata)


def test_address_of_a_release(tmp_path: Path) -> None:
    """Package: a release links to its repository, from the README to the files of its tag."""
    address = "https://code.example/a-fork/streamkit"
    built_here = (sys.executable, "-m", "uv", "build", "--quiet", "--out-dir", tmp_path, ROOT)
    run(*built_here, env={"STREAMKIT_REPOSITORY": address})
    (sdist,), (wheel,) = tmp_path.glob("*.tar.gz"), tmp_path.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    # The wheel is built out of the sdist, so that has them, too.
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_bytes(archive.read(f"{NAME}.dist-info/METADATA"))
    assert metadata["Dynamic"] is None
    files = f"{address}/blob/v{PROJECT['version']}/"
    assert metadata.get_all("Project-URL") == [
        f"Source, {address}",
        f"Documentation, {files}docs/index.md",
        f"Changelog, {files}CHANGELOG.md",
        f"Issues, {address}/issues",
    ]
    linked = {link.partition("#")[0] for link in links(metadata)}
    assert len(linked) > 20
    assert {link.removeprefix(files) for link in linked} <= tracked()
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
    assert "STREAMKIT_REPOSITORY: ${{ github.server_url }}/${{ github.repository }}" in workflow


def text_of(metadata: Message) -> str:
    body = metadata.get_payload()
    assert isinstance(body, str)
    return body


def links(metadata: Message) -> list[str]:
    """Return where the README links to, except for places in itself."""
    return re.findall(r"\]\((?!#)([^)]*)\)", text_of(metadata))


def test_classifiers(metadata: Message) -> None:
    """Package: each classifier exists, and the Pythons are those that nox and the workflow test."""
    named = metadata.get_all("Classifier", [])
    assert [name for name in named if name not in classifiers] == []
    pythons = re.findall(r"Python :: (3\.\d+)$", "\n".join(named), re.MULTILINE)
    nox = re.search(r"^SUPPORTED = \((.*)\)$", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    assert nox is not None
    assert pythons == re.findall(r"[\d.]+", nox[1])
    workflow = (ROOT / ".github" / "workflows" / "checks.yml").read_text()
    matrix = re.search(r"^ +python: \[(.*)\]$", workflow, re.MULTILINE)
    assert matrix is not None
    assert pythons == re.findall(r"[\d.]+", matrix[1])
    assert PROJECT["requires-python"] == f">={pythons[0]}"


def test_changelog() -> None:
    """Package: the changelog has this version and its date, and a tag is this version."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    sections = re.findall(r"^\*\*(.+)\*\*(.*)$", text, re.MULTILINE)
    tag = os.environ.get("STREAMKIT_TAG")
    if tag is None and sections[0] == ("UNRELEASED", ""):
        del sections[0]
    version, date = sections[0]
    assert version == PROJECT["version"]
    assert re.fullmatch(r" \(\d{4}-\d\d-\d\d\)", date)
    assert tag in (None, f"v{version}")
