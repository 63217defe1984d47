"""
Tests that are shipped, and what tests of others are made with.

May import ``_combinators``, ``_runs`` and what stands below them, and no test framework: who has
tests brings one.

What a log of runs must do: ``suite`` (how a log is made, and a run that is written to), then
``writing``, ``ending``, ``asking`` and ``watching``, one subject each.

A source that is interrupted everywhere: ``places`` and ``points`` (where it waits), ``eye`` (what
is seen of a run), ``observed`` and ``function`` (what stands between and sees it), ``visit`` (how
it is interrupted), ``once`` (one run), ``leftovers`` and ``findings`` (what is wrong with it),
``campaign`` (all runs), ``cases`` (the same in the test's own loop), ``folding`` and ``report``
(what is said). ``loops``, ``outside``, ``trio_order`` and ``virtual_time`` know of event loops and
time, ``abandoned`` and ``watchdog`` of what does not end. ``lasting`` is for fixtures.
"""
