"""The public face of the package: what is exported, documented and imported."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType

import pytest

import streamkit
from support import environment

ROOT = Path(__file__).resolve().parent.parent


def modules() -> Iterator[ModuleType]:
    """Import all modules of the package."""
    yield streamkit
    for found in pkgutil.walk_packages(streamkit.__path__, "streamkit."):
        yield importlib.import_module(found.name)


def is_public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


MODULES = {module.__name__: module for module in modules()}
PUBLIC_MODULES = [module for name, module in MODULES.items() if is_public(name)]


def exported() -> Iterator[tuple[str, object]]:
    """Yield what the public modules export, by its full name."""
    for module in PUBLIC_MODULES:
        for name in module.__all__:
            yield f"{module.__name__}.{name}", getattr(module, name)


def documented() -> Iterator[tuple[str, object]]:
    """Yield the public modules, their classes and functions, and the public members of these."""
    for module in PUBLIC_MODULES:
        yield module.__name__, module
    for name, value in exported():
        if inspect.isclass(value) or inspect.isfunction(value):
            yield name, value
        if inspect.isclass(value):
            for member, attribute in members_of(value):
                if is_public(member) and (inspect.isfunction(attribute) or is_property(attribute)):
                    yield f"{name}.{member}", attribute


def members_of(cls: type) -> Iterator[tuple[str, object]]:
    """Yield what is defined in a class, and in the private ones that it is made of."""
    for base in cls.__mro__:
        if base is cls or (is_ours(base) and not is_public(base.__module__)):
            yield from vars(base).items()


def is_property(value: object) -> bool:
    return isinstance(value, property | classmethod | staticmethod)


def named(found: Iterator[tuple[str, object]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("value", [pytest.param(value, id=name) for name, value in found])


@pytest.mark.parametrize("module", PUBLIC_MODULES, ids=lambda module: module.__name__)
def test_all_is_complete(module: ModuleType) -> None:
    """``__all__`` lists every public name of a public module, and nothing else, in order."""
    submodules = {name.rpartition(".")[2] for name in MODULES if is_public(name)}
    public = {name for name in vars(module) if is_public(name)} - submodules - {"annotations"}
    if module is not streamkit:
        # The package re-exports. An integration has code of its own, imports what it needs, and
        # re-exports from private modules what it says in ``__all__``.
        public = {
            name
            for name in public
            if is_defined_in(module, value := vars(module)[name])
            or (name in module.__all__ and is_from_private_module(value))
        }
    assert set(module.__all__) == public
    assert len(module.__all__) == len(public)
    constants = [name for name in module.__all__ if name.isupper()]
    classes = [name for name in module.__all__ if name[0].isupper() and not name.isupper()]
    functions = [name for name in module.__all__ if name[0].islower()]
    assert module.__all__ == sorted(constants) + sorted(classes) + sorted(functions)


def is_defined_in(module: ModuleType, value: object) -> bool:
    if inspect.isclass(value) or inspect.isfunction(value):
        return value.__module__ == module.__name__
    # A constant: a plain one, or an instance of a class of this module.
    return isinstance(value, int | float | str) or type(value).__module__ == module.__name__


def is_from_private_module(value: object) -> bool:
    """Tell whether it is a class of a private module, or a constant that is an instance of one."""
    cls = value if inspect.isclass(value) else type(value)
    return not is_public(cls.__module__)


def test_every_combinator_is_exported() -> None:
    """What a private module defines under the name of a combinator is in ``__all__``."""
    combinators = {
        name
        for module in MODULES.values()
        for name, value in vars(module).items()
        if name.startswith("with_") and inspect.isfunction(value)
        if not is_public(module.__name__)
    }
    assert combinators
    assert combinators <= set(streamkit.__all__)


@named(exported())
def test_no_module_leaks(value: object) -> None:
    """Nothing that is exported is a module, or comes from another package."""
    assert not inspect.ismodule(value)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__module__.partition(".")[0] == "streamkit"
        assert is_public(value.__qualname__)


@named(exported())
def test_bears_its_public_name(value: object) -> None:
    """A class or function says where users find it, and its annotations can be evaluated there."""
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__module__ in {module.__name__ for module in PUBLIC_MODULES}
        assert getattr(sys.modules[value.__module__], value.__name__) is value
        typing.get_type_hints(value)


# What runs know of HTTP: whose notice of a shutdown they share, and where an answer goes.
HTTP_OF_RUNS = {"_http.host", "_http.outlet", "_http.termination"}


def test_an_arrow_never_runs_back() -> None:
    """A wing of the package imports only what stands below it, as its ``__init__`` says."""
    below = {
        "_core": set[str](),
        "_signals": {"_core"},
        "_combinators": {"_core", "_signals"},
        "_sources": {"_core", "_combinators"},
        "_http": {"_core", "_signals", "_combinators"},
        "_sse": {"_core", "_signals", "_http.outlet"},
        "_redis": {"_core", "_signals"},
        "_redislog": {"_core", "_redis", "_runs"},
        "_runs": {"_core", "_signals", "_combinators", "_sse", *HTTP_OF_RUNS},
        "_websocket": {"_core", "_signals", "_combinators", "_http", "_sse.json", "_runs"},
        "_client": {"_core"},
        "_testing": {"_core", "_combinators"},
        "_conformance": {"_runs"},
        "_sqlite": {"_core", "_runs"},
        "_telemetry": {"_core", "_combinators.timeout", "_runs.errors"},
    }
    wings = {name for name in MODULES if name.count(".") == 1 and not is_public(name)}
    assert wings == {f"streamkit.{wing}" for wing in below}
    for wing, allowed in below.items():
        for path in (ROOT / "streamkit" / wing).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.level == 2:
                    wing = str(node.module).partition(".")[0]
                    assert wing in allowed or node.module in allowed, path
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    assert str(node.module).partition(".")[0] != "streamkit", path
                elif isinstance(node, ast.Import):
                    assert all(not name.name.startswith("streamkit") for name in node.names), path


def test_what_was_not_awaited_has_its_public_name() -> None:
    """A warning about a coroutine that was never awaited names what the user wrote."""
    program = """
import anyio, warnings
from streamkit import with_status

async def source():
    yield 1

async def main():
    async with with_status(source()) as stream:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            stream.__anext__()
            stream.head()
        print(*(str(warning.message) for warning in caught), sep="; ")

anyio.run(main)
"""
    said = run_python(program).strip()
    assert said == (
        "coroutine 'Stream.__anext__' was never awaited; "
        "coroutine 'StatusStream.head' was never awaited"
    )


@named(exported())
def test_no_private_type_leaks(value: object) -> None:
    """The public signatures name no class of the package that is not exported."""
    public = {value for _, value in exported() if inspect.isclass(value)}
    members = [value]
    if inspect.isclass(value):
        members = [member for name, member in vars(value).items() if is_public(name)]
    for member in members:
        function = member.fget if isinstance(member, property) else member
        if inspect.isfunction(function):
            for hint in typing.get_type_hints(function).values():
                assert {cls for cls in classes_in(hint) if is_ours(cls)} <= public


def classes_in(hint: object) -> Iterator[type]:
    """Yield the classes that a type names, at any depth."""
    if inspect.isclass(hint):
        yield hint
    if (origin := typing.get_origin(hint)) is not None:
        yield from classes_in(origin)
    for argument in typing.get_args(hint):
        for inner in argument if isinstance(argument, list) else [argument]:
            yield from classes_in(inner)


def is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "streamkit"


@named(documented())
def test_has_a_docstring(value: object) -> None:
    """Every public module, class, function, method and property says what it is."""
    docstring = vars(value).get("__doc__") if inspect.isclass(value) else inspect.getdoc(value)
    assert docstring
    assert not docstring.startswith(f"{getattr(value, '__name__', '')}(")


@named(exported())
def test_explains_its_parameters(value: object) -> None:
    """Hovered, a public function or class explains each of its own parameters, not its base's."""
    docstring = vars(value).get("__doc__") if inspect.isclass(value) else inspect.getdoc(value)
    if inspect.isclass(value):
        if is_dataclass(value) or issubclass(value, BaseException):
            return  # its fields are explained one by one
        if not any(":param " in (base.__doc__ or "") for base in value.__mro__ if is_ours(base)):
            return  # programs do not make it
    elif not inspect.isfunction(value):
        return
    parameters = inspect.signature(value).parameters
    if parameters.keys() == {"event"}:
        return  # "Tell whether an event is ..."
    assert [name for name in parameters if f":param {name}:" not in (docstring or "")] == []


def test_is_typed() -> None:
    """The package says to type checkers that it is typed."""
    assert [Path(path, "py.typed").is_file() for path in streamkit.__path__] == [True]


def run_python(program: str) -> str:
    """Run a program in a fresh interpreter and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
    )
    assert result.stderr == ""
    return result.stdout


def test_help_is_a_map() -> None:
    """``help(streamkit)`` names every public module, and each combinator, source and signal."""
    text = streamkit.__doc__ or ""
    modules = [name for name in MODULES if is_public(name) and "." in name]
    assert [name for name in modules if f"``{name}``" not in text] == []
    functions = [name for name in streamkit.__all__ if name[0].islower()]
    left_out = {"current_cancellation", "shared_poll"}
    assert {name for name in functions if f":func:`{name}`" not in text} == left_out


def test_imports_anyio_alone() -> None:
    """``import streamkit`` loads anyio and what anyio needs: no trio, no extra."""
    program = """
import sys
before = set(sys.modules)
import streamkit
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""
    loaded = set(run_python(program).split()) - sys.stdlib_module_names
    assert loaded - {"idna", "sniffio", "typing_extensions"} == {"anyio", "streamkit"}


def test_telemetry_is_not_loaded() -> None:
    """What streams may be watched with is loaded by its own module alone, whatever else is used."""
    program = """
import sys
import streamkit, streamkit.asgi, streamkit.client, streamkit.jsonlines, streamkit.redis
import streamkit.runs, streamkit.sqlite, streamkit.sse, streamkit.starlette
print(*{name.partition(".")[0] for name in sys.modules} & {"opentelemetry", "prometheus_client"})
import streamkit.opentelemetry
print("opentelemetry" in sys.modules)
"""
    assert run_python(program).split() == ["True"]


def test_runs_without_asyncio() -> None:
    """A program on trio does not load asyncio, which takes longer than all of streamkit."""
    program = """
import sys
sys.modules["asyncio"] = None
import trio
import streamkit.client, streamkit.jsonlines, streamkit.runs, streamkit.sse
from streamkit import StreamCancelled, poll, with_cancellation, with_keepalive
from streamkit.asgi import StreamResponse

async def source():
    yield b"item"
    try:
        await trio.sleep_forever()
    except StreamCancelled as stop:
        yield stop.reason

async def receive():
    await trio.sleep_forever()

async def send(message):
    print(message.get("body"))

async def stop():
    return b"stop"

async def main():
    items = with_keepalive(with_cancellation(source(), poll(stop, every=1)), 15, b"beat")
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await StreamResponse(items)(scope, receive, send)

trio.run(main)
"""
    assert run_python(program).splitlines() == ["None", "b'item'", "b'stop'", "b''"]


def test_runs_without_trio() -> None:
    """A stream runs on asyncio where trio can't be imported, and no extra can."""
    program = """
import sys
from importlib.metadata import requires
for name in "trio", "uvloop", "exceptiongroup", "outcome", "sniffio":
    if not any(needed.startswith(name) and ";" not in needed for needed in requires("anyio")):
        sys.modules[name] = None
import anyio
from streamkit import CancelToken, StreamCancelled, with_cancellation, with_keepalive, with_status

async def source():
    yield "item"
    await anyio.sleep_forever()

async def main():
    token = CancelToken()
    stream = with_status(with_keepalive(with_cancellation(source(), token), 15, "beat"))
    try:
        async with stream:
            async for item in stream:
                print(item)
                token.cancel("stop")
    except StreamCancelled as stop:
        print(stop.reason)

anyio.run(main)
"""
    assert run_python(program).split() == ["item", "stop"]
