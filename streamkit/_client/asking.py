"""
The first request, and the later ones.

A GET is sent again as it was, with the id of the last event. Any other request may have had an
effect, so it is never sent again, neither after a cut nor along a redirect: what it has started is
read by a GET, at the ``Location`` of its response, or where the user says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2

# Headers that are added to each request. A compressed response comes late, and may grow larger than
# it should.
_ASKED = {"accept": "text/event-stream, application/x-ndjson", "accept-encoding": "identity"}

# Characters that end a word in a header, and that no header may contain.
_BLANKS = b"\v\f"

# Headers that describe the body, which a GET does not have.
_OF_BODY = ("content-type", "content-length", "content-encoding", "transfer-encoding")


class Asking:
    """
    Knows the next request.

    :param url: the URL of the first request
    :param headers: the headers of each request
    :param options: further arguments of the first request, and of each one that repeats it
    :param resume: where to go on if the first request is not a GET, or ``None``

    """

    __slots__ = ("_headers", "_is_first", "_method", "_options", "_resume", "_url", "foreign")

    def __init__(
        self,
        method: str,
        url: httpx2.URL | str,
        headers: httpx2.Headers,
        options: Mapping[str, Any],
        resume: httpx2.URL | str | None,
    ) -> None:
        #: A ``Location`` that is not trusted, because it is at another origin, or is not a URL.
        self.foreign: str = ""
        self._method = method
        self._url = url
        self._headers = headers
        self._options = options
        self._resume = resume
        self._is_first = True

    @property
    def is_repeatable(self) -> bool:
        """Whether each request is the first one again."""
        return self._method == "GET"

    @property
    def may_go_on(self) -> bool:
        """Whether there is a next request."""
        return self.is_repeatable or self._resume is not None

    def next(self, last_event_id: str) -> dict[str, Any]:
        """Return the arguments of the next request."""
        headers = httpx2.Headers(self._headers)
        for name, value in _ASKED.items():
            headers.setdefault(name, value)
        if sent := _sent(last_event_id):
            headers = httpx2.Headers([*headers.raw, (b"last-event-id", sent)])
        is_first, self._is_first = self._is_first, False
        if self.is_repeatable or is_first:
            return {
                "method": self._method,
                "url": self._url,
                "headers": headers,
                "follow_redirects": self.is_repeatable,
                **self._options,
            }
        for name in _OF_BODY:
            headers.pop(name, None)
        assert self._resume is not None
        again = {"method": "GET", "url": self._resume, "headers": headers, "follow_redirects": True}
        if "auth" in self._options:
            again["auth"] = self._options["auth"]
        return again

    def note(self, response: httpx2.Response) -> None:
        """Note where an answer says to go on, if nothing has said so yet."""
        if self.is_repeatable or self._resume is not None:
            return
        location = response.headers.get("location")
        if location is None:
            return
        try:
            url = response.url.join(location)
        except httpx2.InvalidURL:
            url = None
        # The credentials of the first request are sent with the next ones.
        if url is not None and _origin(url) == _origin(response.url):
            self._resume = url
        else:
            self.foreign = location


def can_be_sent(last_event_id: str) -> bool:
    """Tell whether a header can carry an id."""
    return not any(blank in _sent(last_event_id) for blank in _BLANKS)


def _sent(last_event_id: str) -> bytes:
    # An id is UTF-8 text, unlike the strings of headers. Space around a value is not part of it.
    return last_event_id.encode().strip(b" \t")


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
