"""What is checked of the arguments of a socket, and what is said of those that belong elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# What to write in place of an option of another response.
_INSTEAD = {
    "background": "on_end=..., or call it when the response has returned",
    "interval": "keepalive=15, in seconds",
    "media_type": "nothing: text is sent as text, and bytes as bytes",
    "ping": "beat={'type': 'ping'}, or nothing: servers send pings of their own",
    "profile": "nothing, or EventStream(source, profile=...)",
    "receive": "stop=..., which is called with each message of the client",
    "status_code": "nothing, and have the source yield a Head first where it refuses",
    "subprotocol": "subprotocols=['...']",
}


def check_socket_options(name: str, options: Mapping[str, object]) -> None:
    """
    Refuse an option that there is elsewhere.

    :param name: of the response
    :raises TypeError: if there is one

    """
    for option in options:
        if option in _INSTEAD:
            raise TypeError(f"{name} takes no {option}: write {_INSTEAD[option]}")


def check_told(errors: object, subprotocols: object, encoder: object) -> None:
    """
    Check how a client is told that there is no stream, and how items are written.

    :raises TypeError: if one of them is of the wrong type
    :raises ValueError: if there is no such way

    """
    if errors not in ("status", "close"):
        raise ValueError(f"errors is 'status' or 'close', got {errors!r}")
    if isinstance(subprotocols, str) or not isinstance(subprotocols, Sequence):
        raise TypeError(
            f"subprotocols must be a sequence of str, got {type(subprotocols).__qualname__}: write "
            "subprotocols=['chat'], for instance"
        )
    if encoder is not None and not callable(encoder):
        raise TypeError(
            f"encoder must be callable, got {type(encoder).__qualname__}: write "
            "encoder=lambda value: ..."
        )
