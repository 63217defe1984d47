"""The documentation runs: every ``python`` block of the README and of the pages in ``docs``.

The blocks of a page run in order and share one namespace. A ``text`` or ``console`` block that
follows is the exact output of the block before it. Each page runs once per backend, with the leak
check, in virtual time but where threads are at work: ``anyio.run()`` is the one of the harness. A
block that names its backend, as in ``anyio.run(main, backend="trio")``, always runs there.
"""

from __future__ import annotations

import ast
import re
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import streamkit
import streamkit.asgi
import streamkit.client
import streamkit.jsonlines
import streamkit.opentelemetry
import streamkit.redis
import streamkit.runs
import streamkit.sqlite
import streamkit.sse
import streamkit.starlette
import streamkit.testing
import streamkit.websocket
from support import Backend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROOT = Path(__file__).resolve().parents[1]
# Virtual time jumps to the next timer while nothing but a thread goes on.
WITH_THREADS = {"docs/blocking.md"}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]

FENCE = re.compile(r"(?P<indent>[\s>]*)(?P<mark>`{3,}|~{3,}|:{3,})(?P<info>.*)")
# However it is marked up, as ```py or as ```{code-block} python, it looks like Python to a reader.
PYTHON = re.compile(r"py(thon3?|con)?\b|ipython|doctest", re.IGNORECASE)
OUTPUT = {"text", "console"}
# A whole example: it has tests of its own.
EXAMPLE = re.compile(r"\{literalinclude\} \.\./examples/\w+\.py")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    line: int
    code: str
    #: Whether only empty lines are between this block and the one before.
    follows: bool


def blocks_of(text: str) -> list[Block]:
    """Find the fenced blocks of a page."""
    found: list[Block] = []
    opened: re.Match[str] | None = None
    first, body, follows = 0, list[str](), False
    for number, line in enumerate(text.splitlines(), start=1):
        fence = FENCE.match(line)
        if opened is not None:
            if fence and fence["mark"].startswith(opened["mark"]) and not fence["info"].strip():
                language = (opened["indent"] + opened["info"]).rstrip()
                found.append(Block(language, first, "".join(body), follows))
                opened, follows = None, True
            else:
                body.append(f"{line}\n")
        elif fence:
            opened, first, body = fence, number, []
        elif line.strip():
            follows = False
    if opened is not None:
        raise ValueError(f"line {first}: the block is never closed")
    return found


def run_page(text: str, where: str, current: Backend, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the Python of a page, and return how many blocks ran."""
    monkeypatch.setattr(anyio, "run", run_on(current))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    ran, printed = 0, ""
    for block in blocks_of(text):
        if block.language == "python":
            # In front of the code, so that a traceback shows the line of the page.
            code = compile("\n" * block.line + block.code, where, "exec", dont_inherit=True)
            with redirect_stdout(StringIO()) as stdout:
                exec(code, namespace)
            ran, printed = ran + 1, stdout.getvalue()
        elif EXAMPLE.fullmatch(block.language):
            assert block.code == ":language: python\n", f"{where}:{block.line}: show all of it"
        elif PYTHON.search(block.language):
            raise ValueError(f"{where}:{block.line}: not run: write ```python at the margin")
        elif block.language in OUTPUT and block.follows:
            assert printed == block.code, f"{where}:{block.line}: this is not what is printed"
    return ran


def run_on(current: Backend) -> Callable[..., Any]:
    """Return an ``anyio.run`` that runs in virtual time and checks for leaks."""
    original = anyio.run

    def run(
        func: Callable[..., Awaitable[Any]],
        *args: Any,
        backend: str | None = None,
        backend_options: dict[str, Any] | None = None,
    ) -> Any:
        if backend_options is not None:
            return original(func, *args, backend=backend, backend_options=backend_options)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(anyio, "run", original)
            return (current if backend is None else Backend(backend)).run(func, *args)

    return run


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docs: every Python block of the page runs, and prints what the page says."""
    text = page.read_text(encoding="utf-8")
    where = str(page.relative_to(ROOT))
    if where in WITH_THREADS:
        backend = Backend(backend.name, real=True)
    ran = run_page(text, where, backend, monkeypatch)
    assert ran == len(re.findall(r"^```python$", text, re.MULTILINE))


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/tutorial.md",
        "docs/stopping.md",
        "docs/blocking.md",
        "docs/merging.md",
        "docs/web.md",
        "docs/reading.md",
        "docs/telemetry.md",
        "docs/own-log.md",
        "docs/ownership.md",
        "docs/guarantees.md",
        "docs/limits.md",
        "docs/start.md",
        "docs/asgi.md",
        "docs/signals.md",
        "docs/one-run.md",
        "docs/deploys.md",
    ],
)
def test_page_has_code(name: str) -> None:
    """Docs: the pages that explain do it with code."""
    blocks = blocks_of((ROOT / name).read_text(encoding="utf-8"))
    assert "python" in [block.language for block in blocks]


def test_reference_has_every_public_name() -> None:
    """Docs: each module has a page in the API reference, with its public names and no others."""
    modules = (
        streamkit,
        streamkit.asgi,
        streamkit.client,
        streamkit.jsonlines,
        streamkit.opentelemetry,
        streamkit.redis,
        streamkit.runs,
        streamkit.sqlite,
        streamkit.sse,
        streamkit.starlette,
        streamkit.testing,
        streamkit.websocket,
    )
    names = [module.__name__.removeprefix("streamkit.") for module in modules]
    pages = (ROOT / "docs" / "api").glob("*.md")
    assert sorted(page.stem for page in pages) == sorted(names)
    for module, name in zip(modules, names, strict=True):
        text = (ROOT / "docs" / "api" / f"{name}.md").read_text(encoding="utf-8")
        documented = re.findall(r"^\.\. (?!py:\w*module)[\w:]+:: ([\w.]+)", text, re.MULTILINE)
        assert sorted(documented) == sorted(f"{module.__name__}.{name}" for name in module.__all__)


def test_links_of_the_readme() -> None:
    """Docs: what the README links to is there. Sphinx checks the pages, but not the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_files_that_the_architecture_names() -> None:
    """Docs: each wing is named; the tests that guard what must hold, and the modules, are there."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tests = re.findall(r"`(tests/[\w/.]+)`", text)
    modules = re.findall(r"`(_\w+/\w+)`", text)
    files = [*tests, *(f"streamkit/{name}.py" for name in modules)]
    assert len(files) > 20
    wings = {path.name for path in (ROOT / "streamkit").glob("_*") if path.name[1] != "_"}
    assert set(re.findall(r"`(_\w+)`", text.partition("## The way")[0])) == wings
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_messages_that_trouble_names() -> None:
    """Docs: each message that is explained is one that the package says."""
    page = (ROOT / "docs" / "trouble.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([^`]+)` \|", page.partition("## By message")[2], re.MULTILINE)
    assert len(named) > 10
    said = [
        node.value
        for file in (ROOT / "streamkit").glob("**/*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [message for message in named if not any(message in each for each in said)] == []


class TestRunner:
    """What would let a broken page pass."""

    def run(self, text: str, monkeypatch: pytest.MonkeyPatch) -> int:
        return run_page(text, "page.md", Backend("asyncio"), monkeypatch)

    def test_blocks_share_a_namespace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Docs: the second block sees what the first one defined."""
        text = "```python\na = 1\n```\nand\n```python\nprint(a)\n```\n\n```text\n1\n```\n"
        assert self.run(text, monkeypatch) == 2

    @pytest.mark.parametrize("language", sorted(OUTPUT))
    def test_wrong_output(self, language: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Docs: an output that is not that of the block before it fails, with its line."""
        text = f"```python\nprint(1)\n```\n\n```{language}\n2\n```\n"
        with pytest.raises(AssertionError, match=r"page\.md:5"):
            self.run(text, monkeypatch)

    def test_text_that_is_no_output(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Docs: a text block after a paragraph is no output."""
        text = "```python\nprint(1)\n```\nSomething else:\n```text\n2\n```\n"
        assert self.run(text, monkeypatch) == 1

    def test_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Docs: an error in a block fails, and its traceback has the line of the page."""
        with pytest.raises(ZeroDivisionError) as caught:
            self.run("Text\n```python\na = 1\na / 0\n```\n", monkeypatch)
        last = caught.traceback[-1].frame
        assert (str(last.code.path), caught.traceback[-1].lineno + 1) == ("page.md", 4)

    @pytest.mark.parametrize(
        "fence",
        [
            "```py",
            "```Python",
            "```python title",
            "```pycon",
            "~~~python3",
            "```{code-block} python",
            "```{literalinclude} ../streamkit/asgi.py",
            ":::{code-block} python",
            "  ```python",
            "> ```python",
        ],
    )
    def test_block_that_is_not_run(self, fence: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Docs: Python in a block that is not run fails."""
        end = re.sub(r"[^`~:>\s]+.*", "", fence)
        with pytest.raises(ValueError, match="not run"):
            self.run(f"{fence}\n1 / 0\n{end}\n", monkeypatch)

    def test_block_that_is_never_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Docs: a block without an end fails."""
        with pytest.raises(ValueError, match=r"line 2: .* never closed"):
            self.run("Text\n```python\na = 1\n", monkeypatch)

    def test_leak(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Docs: a block that leaves a generator to the garbage collector fails."""
        text = (
            "```python\nimport anyio\nasync def numbers():\n    yield 1\nasync def main():\n"
            "    async for _ in numbers():\n        break\nanyio.run(main)\n```\n"
        )
        with pytest.raises(Exception, match="garbage collector"):
            self.run(text, monkeypatch)


LINK = re.compile(r"\]\(([^)\s:#]*)#([^)\s]+)\)")
HEADING = re.compile(r"#+ (.+)")


def anchors_in(page: Path) -> set[str]:
    """Return the anchors of a page on GitHub, which keeps an underscore, unlike Sphinx."""
    headings = map(HEADING.fullmatch, page.read_text(encoding="utf-8").splitlines())
    titles = (heading[1].lower() for heading in headings if heading)
    return {re.sub(r"[^\w -]", "", title).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_to_headings(page: Path) -> None:
    """A link to a heading leads there on the site and on GitHub, where a new user reads first."""
    for file, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / file).resolve() if file else page
        assert anchor in anchors_in(target), f"{file}#{anchor}"
