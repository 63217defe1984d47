"""
The parts of ``RedisLog``, for ``streamkit.redis``.

May import ``_redis``, which knows how to connect, and ``_runs``, whose protocol it follows.

To read: ``names`` (keys and channels), ``scripts`` (what the server does) and ``replies`` (what it
answers), ``call`` (what is on its way to it), ``page`` (what is read, for all who want the same),
``messages`` (what is published), ``tail`` (what was heard of a run), ``followed`` (who waits here
for news of a run), ``ring`` and ``produced`` (the runs of this process), ``desk`` (all of these),
``session`` (the life of one connection), ``part`` (for the link), ``opened`` (who has opened it)
and ``log``.
"""
