"""
The parts of the registry over Redis or Valkey, for ``streamkit.redis``.

May import ``_signals`` and the small parts of ``_core``, and coredis where a connection is made.

To read: ``wire`` (names and messages), ``ledger`` (what this process holds and has to send),
``store`` (the commands), ``session`` (the life of one connection), ``link`` (connecting again and
again), ``waiter`` (who waits for an answer), ``work`` (the background task's list).
"""
