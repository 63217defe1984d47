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
import _scenarios  # noqa: E402

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

_scenarios.write(HERE / "_build")

# Type variables are not documented anywhere.
nitpick_ignore_regex = [
    ("py:(class|obj)", r"(streamkit\.(_?\w+\.)+)?_?[A-Z][a-zA-Z]?(_co|_contra)?"),
    # Its documentation is no reference that could be linked to.
    ("py:class", r"(starlette|httpx2)\..*"),
]


def modules() -> list[ModuleType]:
    """Import the modules of the package."""
    package = import_module("streamkit")
    return [
        import_module(found.name)
        for found in pkgutil.walk_packages(package.__path__, "streamkit.")
        if not found.ispkg
    ]


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
    """Let ``streamkit._core.outcome.OutcomeKind``, as autodoc has it, link to what is exported."""
    package, _, rest = str(node.get("reftarget", "")).partition("._")
    if package != "streamkit" or node.get("refdomain") != "py":
        return None
    name = rest.split(".", 2)[-1]
    return env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], f"streamkit.{name}", node, contnode
    )


def read_comments_where_they_are_written() -> None:
    """
    Document attributes and constants with their comments, also if a private module has these.

    autodoc looks for them, and for overloads, in the module whose name a class or a function bears,
    or under which a constant is documented: a public one, which only exports them.
    """
    for public in (import_module("streamkit"), *modules()):
        if "._" in public.__name__:
            continue
        read = ModuleAnalyzer.for_module(public.__name__)
        read.analyze()
        for module in modules():
            written = ModuleAnalyzer.for_module(module.__name__)
            written.analyze()
            for (owner, name), comment in written.attr_docs.items():
                if exports(public, module, owner or name):
                    read.attr_docs.setdefault((owner, name), comment)
            for tag, line in written.tagorder.items():
                if exports(public, module, tag.partition(".")[0]):
                    read.tagorder.setdefault(tag, line)
            for function, signatures in written.overloads.items():
                if exports(public, module, function.partition(".")[0]):
                    read.overloads.setdefault(function, signatures)


def exports(public: ModuleType, module: ModuleType, name: str) -> bool:
    """Tell whether what a module has under a name is what a public one has under that name."""
    return name in vars(module) and vars(public).get(name, public) is vars(module)[name]


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
    read_comments_where_they_are_written()
    app.connect("autodoc-process-signature", make_default_parsable)
    app.connect("missing-reference", resolve_where_it_is_exported)
