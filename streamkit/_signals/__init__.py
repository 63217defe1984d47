"""
What tells a stream to stop: a token that somebody fires, wherever that is.

Knows tokens and keys, and no stream. May import the small parts of ``_core``: its exceptions, the
way into an event loop, the checks of arguments.

To read: ``token`` first, then ``holder`` and ``registry`` (tokens by key, in one process), ``poll``
(a token that fires when a function says so) and ``on_signals`` (one that signals of the process
fire). ``shutdown`` is the reason that the end of the program has. The registry over Redis is in
``_redis``.
"""
