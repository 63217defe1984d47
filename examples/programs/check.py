"""What the demo in a browser runs: it reads modules, rests after each package, and can be told."""

import ast
import signal
import sys
import time
from pathlib import Path

read = 0


def stop(*_: object) -> None:
    sys.exit(1)


signal.signal(signal.SIGTERM, stop)
try:
    for package in "json", "urllib", "http", "unittest":
        for path in sorted((Path(ast.__file__).parent / package).glob("*.py")):
            nodes = [*ast.walk(ast.parse(path.read_bytes()))]
            functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
            documented = sum(ast.get_docstring(node) is not None for node in functions)
            print(f"{package}.{path.stem}: {documented} of {len(functions)} documented")
            read += 1
            time.sleep(0.2)
        time.sleep(4.5)
    print(f"{read} modules read")
except SystemExit:
    print(f"SIGTERM: writing down the {read} modules that were read")
    time.sleep(0.3)
    print("written")
    raise
