"""
One request and its answer, over ASGI: for ``streamkit.asgi``, and for what is built on that.

Knows bytes, and nothing of what is in them. May import ``_combinators``, ``_signals`` and
``_core``.

To read: ``exchange`` (the life of one response), ``outlet`` (what stands between the stream and its
bytes), ``messages`` and ``headers`` (the words of ASGI), ``host`` (what outlives a request),
``termination`` (how a process learns that it is to end), and ``returned`` (what a framework is told
that takes a response for something else).
"""
