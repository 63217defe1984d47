"""
What a log of runs must do, as tests that are shipped.

May import ``_runs`` and what stands below it, and no test framework: who writes a log brings
one. To read: ``suite`` (how a log is made, and a run that is written to), then ``writing``,
``ending``, ``asking`` and ``watching``, one subject each.
"""
