"""The checks of a socket's arguments, and the advice on those that belong elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

#: What to do about an option of another response.
OF_SOCKETS = {
    "background": "write on_end=..., or call it when the response has returned",
    "interval": "write keepalive=15, in seconds",
    "media_type": "write nothing: text is sent as text, and bytes as bytes",
    "ping": "write beat={'type': 'ping'}, or nothing where the server sends pings of its own",
    "profile": "write nothing, or EventStream(source, profile=...)",
    "receive": "write stop=..., which is called with each message of the client",
    "status_code": "write nothing, and have the source yield a Head first where it refuses",
    "subprotocol": "write subprotocols=['...']",
}


def check_told(errors: object, subprotocols: object, encoder: object) -> None:
    """
    Check how a client is told that there is no stream, and how items are written.

    :raises TypeError: if one of them is of the wrong type
    :raises ValueError: if ``errors`` is not one of its two values

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
