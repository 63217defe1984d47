"""
The protocol of logs, as a model that is small enough to visit every state of it.

``store.py`` has the rules: one function for each call, in the order in which a log must do it.
``state.py`` has what a world is made of, and ``world.py`` what may happen next in it: what
``producers.py`` and ``readers.py`` do, and what goes wrong in ``mishaps.py``. ``promises.py`` says
what must hold whatever happens, ``explorer.py`` visits all worlds, those with the fewest steps
first, so that the trace of a failure is one of the shortest. ``test_protocol.py`` says what is
visited, and takes out each rule to see that its loss is found.

What is visited, as counted by the run:

=============================================== ======= ======= =====
what goes wrong                                  worlds   steps depth
=============================================== ======= ======= =====
one fault of any kind                            31,497 117,199    19
one fault, two readers                           15,280  49,456    16
one fault, and the id is used again              84,010 241,229    16
one fault, and only the last items are there     18,263  58,587    14
one fault, and a cancellation                     6,703  17,996    15
one fault, and readers that come back            17,257  58,634    15
two faults of time                               14,388  48,926    19
two faults, all at once                         113,134 283,490     6
=============================================== ======= ======= =====

All but the last are all that can be reached; the last is so many steps deep. From each world it is
also seen that all comes to an end, if nothing more goes wrong.
"""
