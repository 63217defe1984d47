"""
The parts that use Redis or Valkey, for ``streamkit.redis``.

May import ``_signals`` and the small parts of ``_core``, and coredis where a connection is used.

To read first, the parts that all users of a connection share: ``connection`` (the shared object),
``clients`` (made anew for each attempt), ``server`` (one server or a cluster), ``subscription``,
``channels`` (the parts that are subscribed), ``line`` (one connection and its users), ``link``
(reconnecting), ``quiet``.

For the registry: ``wire`` (names and messages), ``ledger`` (what this process holds and has to
send), ``store`` (the commands), ``session`` (the life of one connection), ``waiter`` (calls that
wait for answers), ``lease`` (keys that are held exclusively), ``work`` (wakes the sending task),
``part`` (all of these, for the link), ``holder`` and ``registry``.
"""
