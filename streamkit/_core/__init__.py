"""
The life of one stream: the task that owns its source, and the consumer that takes its items.

Knows no combinator: what one does is a stage, a set of hooks. Imports nothing of streamkit but
itself, and no library but anyio. What users import from here is exported by ``streamkit``.

To read from the outside in: ``stream`` (the block), ``stage`` and ``pipeline`` (what stands on it),
``handoff`` (where source task and consumer meet), ``pump`` (the life of the source task),
``source`` (one shape for all that can be iterated), ``relay`` and ``scopes`` (how a cancellation
reaches it), ``ending`` and ``outcome`` (what its end means). What is inside a source is closed by
``unwinding`` and ``closing``, as found by ``generators``, ``chain`` and ``frames``. ``backend``,
``timer`` and ``loop`` tell asyncio and trio apart; ``exceptions``, ``clock`` and ``arguments`` are
small parts.
"""
