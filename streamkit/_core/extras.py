"""What a module says that needs an extra, where that is not installed."""

from __future__ import annotations


def without_extra(module: str, extra: str, package: str, error: ImportError) -> ImportError:
    """
    Return what to raise where an import has failed.

    :param module: the public module that needs an extra
    :param extra: the extra
    :param package: the package that it brings
    :param error: what the import has raised
    :return: this, unless it is that package which was not found: then an error that says what to
        install

    """
    if not isinstance(error, ModuleNotFoundError) or error.name != package:
        return error
    return ModuleNotFoundError(
        f"{module} needs {package}, which is not installed: run "
        f"pip install 'anyio-streamkit[{extra}]'",
        name=package,
    )
