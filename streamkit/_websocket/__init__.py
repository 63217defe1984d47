"""
One WebSocket and the stream that it is sent: the exchange of ``_http`` in other words.

Of a response, all stays but what is said: a message is a frame, the status is that of the
handshake, and the end is a close with a code. And the client is heard: it may ask for a stop. May
import ``_http``, of ``_sse`` what makes JSON, ``_runs``, ``_signals``, ``_combinators`` and
``_core``.

To read: ``messages`` (the words of ASGI), ``outlet`` (how an item becomes a frame), ``stops`` (what
a client says that wants a stop), ``closing`` (with which code a socket is closed), ``connection``
(the client, which is read all the time) and ``exchange`` (the life of one socket); ``run`` (what
the reader of a run is told) and ``arguments`` (what is checked).
"""
