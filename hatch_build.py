"""
What the metadata of a release say about its repository: the address, and the links of the README.

No file names the address, so it is true in a fork, too. The workflow that publishes a release
gives it, as ``STREAMKIT_REPOSITORY``. A package that is built without it has no address: a link to
a file of the repository would lead nowhere on PyPI, so only its text is left.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# To a file of the repository, and not to a place in the README itself.
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)]+)\)")


class MetadataHook(MetadataHookInterface):
    """Adds ``readme`` and ``urls``, which are dynamic in ``pyproject.toml``."""

    def update(self, metadata: dict[str, Any]) -> None:
        repository = os.environ.get("STREAMKIT_REPOSITORY")
        files = f"{repository}/blob/v{metadata['version']}"
        readme = (Path(self.root) / "README.md").read_text("utf-8")
        linked = rf"[\1]({files}/\2)" if repository else r"\1"
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": LINK.sub(linked, readme),
        }
        if repository:
            metadata["urls"] = {
                "Source": repository,
                "Documentation": f"{files}/docs/index.md",
                "Changelog": f"{files}/CHANGELOG.md",
                "Issues": f"{repository}/issues",
            }
