"""
What a log of runs must do, as shipped tests, for ``streamkit.testing``.

May import ``_runs``, but no test framework: the tests that use it bring their own.

To read: ``suite`` (how a log is made, and a run to write to), then ``writing``, ``ending``,
``asking`` and ``watching``, one subject each.
"""
