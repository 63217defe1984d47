"""
Runs that are kept in a file: the parts of ``SQLiteLog``, for ``streamkit.sqlite``.

May import ``_runs`` and the small parts of ``_core``. Everything that touches the file is sync, and
is done in one thread. Everything async waits for events that this thread sets.

To read: ``schema`` (the tables) and ``opening`` (a file with them), ``clock``, ``row`` and
``transaction`` (what is written together), ``writing`` and ``reading`` (what the calls of a log
do), ``forgetting``, ``database`` (one connection), ``worker`` (the thread), ``session`` (one event
loop that uses it), ``log``.
"""
