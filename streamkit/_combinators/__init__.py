"""
The combinators: each is one file that says all about itself.

A combinator is a function that checks its arguments and puts a stage on a source. It knows the
stream and the stage, and no other combinator, so they can be chained in any order. May import
``_core``, and ``_signals`` for what ends a stream.

To read: ``buffer`` is the shortest, then ``keepalive``, ``cancellation``, ``timeout``, ``status``.
"""
