"""
Tools for users' own tests, for ``streamkit.testing``.

May import ``_combinators`` and ``_core``, but not a test framework: users bring their own.

A source that is interrupted everywhere: ``places`` and ``points`` (where it waits), ``eye`` (what
is seen of a run), ``observed`` and ``function`` (what stands between the source and the event loop,
and sees it), ``visit`` (how it is interrupted), ``once`` (one run), ``leftovers`` and ``findings``
(what is wrong with it), ``campaign`` (all runs), ``cases`` (the same in the test's own loop),
``folding`` and ``report`` (what is reported). ``loops``, ``outside``, ``trio_order`` and
``virtual_time`` deal with event loops and time, ``abandoned`` and ``watchdog`` with what does not
end. ``lasting`` is for fixtures, ``asgi`` for endpoints, and ``marked`` for the markers of pytest.
"""
