"""
What OpenTelemetry is told about streams, for ``streamkit.opentelemetry``. Nothing else imports it.

May import ``_core``, and from ``_combinators`` and ``_runs`` the errors that it has names for.

To read: ``instruments`` (what is counted), ``saying`` (how an end is described, in attributes),
``route`` (which request it belongs to), ``spans`` (which spans describe it), ``stage`` (one
stream), ``runs`` (which outlive their request), ``hooks`` (where they all come from), and
``safely`` (none of it breaks a stream).
"""
