"""
An injector of faults: it strikes before each step that an event loop makes, and looks at the end.

A *run* puts one source into one chain for one consumer, on a fresh loop in virtual time. The run
without a fault counts the steps: the callbacks of asyncio, the steps of trio's tasks. Then faults
are injected right before one of them, single and in pairs, and every run is checked for all that
a stream promises. A run has an id, which says all of it and runs it again.

In which order to read: ``record`` and ``frame`` (what a run notes), ``sources``, ``streams`` and
``consumers`` (what is run), ``faults``, ``steps`` and ``loops`` (how a fault meets its step),
``cases`` (ids, and which runs there are), ``engine`` (one run), ``checks``, ``campaign`` (many
runs). ``toys`` has streams with a defect each, to test the injector itself.
"""
