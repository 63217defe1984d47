"""
Server-sent events: the format, and the protocols that clients speak in it.

Makes text of items, without a stream, and keeps to bytes. May import the outcome and the metadata
of ``_core``, of ``_signals`` the reason that a shutdown has, and of ``_http`` what makes bytes of
items.

To read: ``events`` (the wire format, safe from injection), ``json`` (what becomes JSON, and how),
``foreign`` (the events of other libraries), ``items`` (how an item becomes an event), ``profile``
(what an item, a beat, an error and an end are in a protocol), ``inside`` (what is in an event that
a source passes on). Then a protocol each: ``browser``, ``openai``, ``anthropic``, ``vercel``,
``ag_ui`` and ``raw``. Beside them, ``outlet`` (how a
response has its items encoded), ``headers`` (which id a client has seen), ``records`` (the same in
JSON lines), ``arguments`` and ``misplaced`` (what is checked, and what is said of arguments that
belong elsewhere).
"""
