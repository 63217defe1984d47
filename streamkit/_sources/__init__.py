"""
Where items come from that no async generator of the user's makes: each is one file that says all
about itself.

What is made here is a stream without a stage of the user's: it is entered as it is, or given to a
combinator. May import ``_core``, and ``_combinators`` for what must not come through.

To read: ``thread`` (a blocking iterable) and its ``worker``, ``merge`` (several sources as one).
"""
