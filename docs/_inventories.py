"""Intersphinx without a network: small inventories, written down in ``docs/inventories``.

Sphinx would download the full inventory of each project at every build. The files here list
the names that this documentation refers to, page by page; a build turns them into the binary
form that :mod:`sphinx.ext.intersphinx` reads. A reference to a name that is not listed is a
broken reference, so the build says what to add.
"""

from __future__ import annotations

import tomllib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LISTS = Path(__file__).parent / "inventories"


def anchor(role: str, name: str) -> str:
    match role:
        case "py:module":
            return f"module-{name}"
        case "std:term":
            return f"term-{name.replace(' ', '-')}"
        case _:
            return name


def entries(objects: dict[str, dict[str, list[str]]]) -> Iterator[str]:
    for page, roles in objects.items():
        for role, names in roles.items():
            for name in names:
                yield f"{name} {role} 1 {page}#{anchor(role, name)} -\n"


def write_inventory(target: Path, listed: dict[str, Any]) -> None:
    """Write a file in version 2 of the Sphinx inventory format."""
    header = (
        "# Sphinx inventory version 2\n"
        f"# Project: {listed['project']}\n"
        f"# Version: {listed['version']}\n"
        "# The remainder of this file is compressed using zlib.\n"
    )
    body = "".join(entries(listed["objects"]))
    target.write_bytes(header.encode() + zlib.compress(body.encode()))


def intersphinx_mapping(directory: Path) -> dict[str, tuple[str, str]]:
    """Write every inventory into ``directory``, and map each project to its own."""
    directory.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for source in sorted(LISTS.glob("*.toml")):
        listed = tomllib.loads(source.read_text(encoding="utf-8"))
        target = directory / f"{source.stem}.inv"
        write_inventory(target, listed)
        mapping[source.stem] = (listed["url"], str(target))
    return mapping
