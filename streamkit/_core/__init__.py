"""
The life of one stream: the task that owns its source, and the consumer that takes its items.

Knows no combinator: what one does is a stage, a set of hooks. Imports nothing of streamkit but
itself, and no library but anyio. What users import from here is exported by ``streamkit``.

To read from the outside in: ``stream`` (the block), ``stage``, ``control`` and ``pipeline`` (what
stands on it, and what that may do), ``handoff`` (where source task and consumer meet), ``beside``
(what runs there, too), ``pump`` and ``stepping`` (the life of the source task), ``source`` (one
shape for all that can be iterated), ``signal``, ``scopes`` and ``relay`` (how it is told),
``stuck`` (where it is then), ``ending``, ``outcome`` and ``conclusion`` (what its end means). What
is inside a source is closed by ``unwinding`` and ``closing``, as found by ``generators``, ``chain``
and ``frames``.

``backend`` and ``loop`` find out which of asyncio and trio is running. What differs is in
``backend_asyncio``, ``relay_asyncio`` and ``timer_asyncio``, loaded when a stream is opened there,
and the same for trio, where ``orphans`` is one more. ``exceptions``, ``metadata``, ``telemetry``,
``advice``, ``clock``, ``arguments`` and ``public`` are small parts.
"""
