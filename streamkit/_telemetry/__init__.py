"""
What OpenTelemetry is told of streams, for ``streamkit.opentelemetry``. Nothing else imports it.

May import ``_core``, and of ``_combinators`` and ``_runs`` the errors that it has names for.

To read: ``instruments`` (what is counted), ``saying`` (how an end is said, in attributes),
``route`` (of which request), ``spans`` (which of them says it), ``stage`` (one stream), ``runs``
(those that outlive their request), ``hooks`` (where they all come from), and ``safely`` (none of it
breaks a stream).
"""
