"""
Streams that outlive their request: a log that keeps what they yield, and its readers.

A run is an ordinary stream whose consumer is the log; an attached reader is an ordinary stream
whose source is the log. So nothing here steps a source, and nothing here waits for a reader. May
import ``_combinators``, ``_signals`` and ``_core``; of ``_sse`` the forms of events, and of
``_http`` the host, the outlet and the termination.

To read: ``runs`` (what users call), ``household`` (the block that runs live in) and ``shelf``
(where they are read). ``log`` (what a log must do) and ``memory`` (one that does it, with ``kept``,
``early`` and ``agenda``), ``state`` (the rules for one run), ``codec`` and ``reasons`` (the forms
of what it keeps). ``producer`` (one run, with ``recorder``, ``writer``, ``budget`` and ``lease``)
and ``burial`` (how a lost run ends).
``reader``, ``attendance``, ``answer`` with ``asked`` and ``said_last`` (readers and responses), and
``visit`` (what telemetry is told of them); ``hints`` (the watchers, for logs that are kept
elsewhere). ``entry``, ``cursor``, ``info``, ``records`` and ``errors`` are what users see,
``arguments`` and ``options`` are the options of a run.
"""
