"""
The combinators: each is one file that explains itself.

A combinator is a function that checks its arguments and puts a stage on a source. It knows the
stream and the stage, but no other combinator, so they can be chained in any order. May import
``_core``, and ``_signals`` for the tokens that end a stream.

To read: ``buffer`` is the shortest, then ``keepalive``, ``cancellation``, ``timeout``, ``status``.
"""
