from __future__ import annotations

import ast
import inspect
import pkgutil
import sys
from importlib import import_module
from importlib.metadata import version as version_of
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from sphinx.pycode import ModuleAnalyzer

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement, reference
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import _inventories  # noqa: E402  (found through the line above)

project = "streamkit"
author = "the streamkit authors"
copyright = author
release = version = version_of("anyio-streamkit")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx"]
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"streamkit {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"

intersphinx_mapping = _inventories.intersphinx_mapping(HERE / "_build" / "inventories")
intersphinx_disabled_reftypes: list[str] = []

# Type variables are not documented anywhere.
nitpick_ignore_regex = [
    ("py:(class|obj)", r"(streamkit\._\w+\.)?_?[A-Z][a-zA-Z]?(_co|_contra)?"),
    # Its documentation is no reference that could be linked to.
    ("py:class", r"starlette\..*"),
]


def modules() -> list[ModuleType]:
    """Import the modules of the package."""
    package = import_module("streamkit")
    return [import_module(f"streamkit.{m.name}") for m in pkgutil.iter_modules(package.__path__)]


def import_what_annotations_name() -> None:
    """
    Run the imports that stand under ``if TYPE_CHECKING:``.

    autodoc evaluates annotations in the namespace of their module and knows nothing of a name that
    is only imported for a type checker.
    """
    for module in modules():
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                imports = ast.Module(node.body, type_ignores=[])
                exec(compile(imports, module.__name__, "exec"), vars(module))


def resolve_where_it_is_exported(
    app: Sphinx, env: BuildEnvironment, node: Element, contnode: TextElement
) -> reference | None:
    """Let ``streamkit._stream.Stream``, as an annotation has it, link to ``streamkit.Stream``."""
    package, _, rest = str(node.get("reftarget", "")).partition("._")
    if package != "streamkit" or node.get("refdomain") != "py":
        return None
    name = rest.partition(".")[2]
    return env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], f"streamkit.{name}", node, contnode
    )


def take_comment_from_where_it_is_assigned(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """
    Document a constant with its comment, also if a private module has both.

    autodoc finds where a class comes from, but looks for a constant only in the module that is
    named, and else takes the docstring of its type.
    """
    if what != "data":
        return
    constant = name.rpartition(".")[2]
    for module in modules():
        comments = ModuleAnalyzer.for_module(module.__name__).find_attr_docs()
        if ("", constant) in comments and vars(module).get(constant) is obj:
            lines[:] = comments["", constant]


def make_default_parsable(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returns: str,
) -> tuple[str, str] | None:
    """Write the default of a dataclass field that has a factory in a way that Sphinx can parse."""
    if signature is None or "<factory>" not in signature:
        return None
    return signature.replace("<factory>", "..."), returns


def setup(app: Sphinx) -> None:
    import_what_annotations_name()
    app.connect("autodoc-process-docstring", take_comment_from_where_it_is_assigned)
    app.connect("autodoc-process-signature", make_default_parsable)
    app.connect("missing-reference", resolve_where_it_is_exported)
