"""
What tells a stream to stop: a token that somebody fires, from wherever they are.

Knows tokens and keys, but no streams. May import the small parts of ``_core``: its exceptions, the
way into an event loop, the checks of arguments.

To read: ``token`` first, then ``holder`` and ``registry`` (tokens by key, in one process), ``poll``
(a token that fires when a function says so) and ``on_signals`` (one that signals of the process
fire). ``shutdown`` holds the reason given at the end of the program. The registry over Redis is in
``_redis``.
"""
