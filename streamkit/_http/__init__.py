"""
One request and its answer, over ASGI: for ``streamkit.asgi``, and for what is built on that.

Knows bytes, and nothing of what is in them. May import ``_combinators``, ``_signals`` and
``_core``.

To read: ``terms`` (what a response was asked to do), ``exchange`` (the life of one response), with
``connection`` (its client), ``rest`` (what comes when that has gone), ``refusal`` (the answer if
nothing starts) and ``failures`` (which are raised, and which logged); ``outlet`` and ``last_word``
(between the stream and its bytes), and ``watched`` (what else hears of it); ``messages``,
``headers`` and ``shared_receive`` (the words of ASGI); ``home``, ``lodger`` and ``host`` (the open
streams, those that outlive a request, and the end of the program), ``termination`` and
``held_signals`` (how a process learns of that end, and how before its server does), and
``returned`` (what a framework sees that takes a response for something else).
"""
