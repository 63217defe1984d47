"""
What tells a stream to stop: a token that somebody fires, wherever that is.

Knows tokens and keys, and no stream. May import the small parts of ``_core``: its exceptions, the
way into an event loop, the checks of arguments.

To read: ``token`` first, then ``holder`` and ``registry`` (tokens by key, in one process) and
``poll`` (a token that fires when a function says so). The registry over Redis is in ``_redis``.
"""
