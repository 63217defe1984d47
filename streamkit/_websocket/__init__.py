"""
One WebSocket and the stream that is sent over it: the exchange of ``_http``, with other messages.

It differs from a response only in what is sent: an item is a frame, the status is that of the
handshake, and the end is a close with a code. And the client is heard: it may ask for a stop. May
import ``_http``, from ``_sse`` what makes JSON, ``_runs``, ``_signals``, ``_combinators`` and
``_core``.

To read: ``messages`` (the words of ASGI), ``outlet`` (how an item becomes a frame), ``stops`` (how
a client asks for a stop), ``closing`` (with which code a socket is closed), ``connection`` (the
client, which is read continuously) and ``exchange`` (the life of one socket); ``run`` (what the
reader of a run is told) and ``arguments`` (the checks).
"""
