"""
Sources other than the user's own async generators: each is one file that explains itself.

What is made here is a stream without a stage of the user's: it is entered as it is, or given to a
combinator. May import ``_core``, and ``_combinators`` for what must not pass through.

To read: ``thread`` (a blocking iterable) and its ``worker``, ``merge`` (several sources as one).
"""
