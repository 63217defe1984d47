"""
One request and its answer, over ASGI: for ``streamkit.asgi``, and for everything built on it.

Knows bytes, and not what is in them. May import ``_combinators``, ``_signals`` and
``_core``.

To read: ``terms`` (what a response was asked to do), ``exchange`` (the life of one response), with
``connection`` (its client), ``rest`` (what is left when the client has gone), ``refusal`` (the
answer when nothing starts) and ``failures`` (which are raised, and which logged); ``outlet`` and
``last_word`` (between the stream and its bytes), and ``watched`` (who else hears of it);
``messages``, ``headers`` and ``shared_receive`` (the words of ASGI); ``home``, ``lodger`` and
``host`` (which streams are there, what outlives a request, and the end of the program),
``termination`` (how a process learns of that), and ``returned`` (advice for a framework that takes
a response for something else).
"""
