"""The error of a module that needs an extra which is not installed."""

from __future__ import annotations


def without_extra(module: str, extra: str, package: str, error: ImportError) -> ImportError:
    """
    Return what to raise where an import has failed.

    :param module: the public module that needs an extra
    :param extra: the extra
    :param package: the package that it brings
    :param error: the error of the import
    :return: that error, or, if the package was not found, an error that says what to
        install

    """
    if not isinstance(error, ModuleNotFoundError) or error.name != package:
        return error
    return ModuleNotFoundError(
        f"{module} needs {package}, which is not installed: run "
        f"pip install 'anyio-streamkit[{extra}]'",
        name=package,
    )
