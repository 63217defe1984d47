"""
A client of streams over HTTP that reconnects: for ``streamkit.client``.

Needs httpx2, of which only the names in ``connection`` are used. May import ``_core``.

To read: ``event`` (what is read), ``lines`` (bytes as lines, none of them too long), ``parser``
(lines as events, and where to go on), ``records`` (the same of JSON lines), ``words`` (which event
is the last) and ``errors``; then ``pauses`` (how long to wait), ``asking`` (the first request and
the later ones) and ``connection`` (one response after another).
"""
