"""
The parts of ``RedisLog``, for ``streamkit.redis``.

May import ``_redis``, which makes the connection, and ``_runs``, whose protocol it follows.

To read: ``names`` (keys and channels), ``scripts`` (what the server does) and ``replies`` (what it
answers), ``call`` (the calls on their way to it), ``page`` (one page that is read, for all readers
that want the same), ``messages`` (what is published), ``tail`` (what was heard of a run),
``followed`` (the runs that are watched here), ``ring`` and ``produced`` (the runs of this process),
``desk`` (all of these), ``session`` (the life of one connection), ``part`` (for the link),
``opened`` (the blocks in which the log is open) and ``log``.
"""
