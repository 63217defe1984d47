"""The prose of the repository: no turns of phrase at which a reader of English stumbles."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: What is not written, as a regular expression, and what to write instead.
WORDS = {
    r"but (for|that)": "except",
    r"(as|by|for|from|of|to|with) who": "whoever, or name them",
    r"(none|nobody|nothing) any more": "no longer",
    r"(?<!there )(are|goes?|is|kept|runs?|waits?) no more(?! than)": "no longer",
    r"(?<!there )(are|is) no (coroutine|error|event|generator|header|int|item|number|object|"
    r"source|str|stream|string|text|token)s?": "not a ...",
    r"(?<=[a-z)`],) for (he|it|nobody|there|they) [a-z]+": "because",
    r"if (an?|the) [a-z]+ is none": "is not a ...",
    r"what is (his|theirs)": "name it",
}
FOUND = re.compile("|".join(rf"\b(?:{word})\b" for word in WORDS), re.IGNORECASE)

#: Comments, docstrings and messages. From Python 3.12 on, an f-string is several tokens.
PROSE = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def files() -> Iterator[Path]:
    """Yield what is checked: the code that is shipped or shown, the pages, and the changelog."""
    for folder in "streamkit", "pytest_streamkit", "examples", "benchmarks":
        yield from sorted((ROOT / folder).rglob("*.py"))
    yield from (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))


def paragraphs(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each comment, each string and each paragraph, in one line, with its line number."""
    text = path.read_text("utf-8")
    lines = dict(enumerate(text.splitlines(), start=1))
    if path.suffix == ".py":
        prose: dict[int, str] = {}
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in PROSE:
                for number in range(token.start[0], token.end[0] + 1):
                    prose[number] = lines[number]
        lines = prose
    start, gathered = 0, ""
    is_code = False
    for number in [*lines, max(lines, default=0) + 2]:
        line = lines.get(number, "").strip().lstrip("#:").strip()
        is_code ^= line.startswith("```")
        if line and not is_code and number - 1 in lines and gathered:
            gathered += f" {line}"
            continue
        if gathered:
            yield start, gathered
        start, gathered = number, "" if is_code else line


@pytest.mark.parametrize(
    "path",
    [*files()],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_words(path: Path) -> None:
    """Docs: short sentences, in words that are used in one sense."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match[0]!r}"
        for line, text in paragraphs(path)
        for match in FOUND.finditer(text)
    ]
    assert found == [], f"write instead: {WORDS}"
