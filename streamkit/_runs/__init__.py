"""
Streams that outlive their request: a log that keeps what they yield, and those who read it.

A run is an ordinary stream whose consumer is the log; an attached reader is an ordinary stream
whose source is the log. So nothing here steps a source, and nothing here waits for a reader. May
import ``_combinators``, ``_signals`` and ``_core``; of ``_sse`` the forms of events, and of
``_http`` the host, where an answer goes, and why a program ends.

To read: ``runs`` (what users call), ``household`` (the block that runs live in) and ``shelf``
(where they are read). ``log`` (what a log must do) and ``memory`` (one that does it, with ``kept``,
``early`` and ``agenda``), ``state`` (the rules for one run), ``codec`` and ``reasons`` (what
travels through it). ``producer`` (one run, with ``recorder``, ``writer``, ``budget`` and ``lease``)
and ``burial`` (of one that is lost).
``reader``, ``attendance``, ``answer`` with ``asked`` and ``said_last`` (those who come and go), and
``visit`` (what telemetry hears of them); ``hints`` (who waits for news, for logs that are kept
elsewhere). ``entry``, ``cursor``, ``info``, ``records`` and ``errors`` are words, ``arguments`` and
``options`` are what is said of a run.
"""
