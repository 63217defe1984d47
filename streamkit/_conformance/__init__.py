"""
What a log of runs must do, as tests that are shipped, for ``streamkit.testing``.

May import ``_runs``, and no test framework: who has tests brings one.

To read: ``suite`` (how a log is made, and a run that is written to), then ``writing``, ``ending``,
``asking`` and ``watching``, one subject each.
"""
