"""
A client of streams over HTTP that comes back: for ``streamkit.client``.

Needs httpx2, of which only what is named in ``connection`` is used. May import ``_core``.

To read: ``event`` (what is read), ``lines`` (bytes as lines, none of them too long), ``parser``
(lines as events, and where to go on), ``records`` (the same of JSON lines), ``words`` (which event
is the last) and ``errors``; then ``pauses`` (how long to wait), ``asking`` (what is asked, at first
and later) and ``connection`` (one answer after the other).
"""
