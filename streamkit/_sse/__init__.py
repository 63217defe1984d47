"""
Server-sent events: the format, and the protocols that clients speak in it.

Makes text of items, without a stream or an await. May import the outcome of ``_core``.

To read: ``events`` (the wire format, safe from injection), then ``profiles`` (what an item, a beat,
an error and an end are in a protocol).
"""
