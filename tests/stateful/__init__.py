"""Properties that must hold for whatever a source, a consumer and the clock do."""

from __future__ import annotations

from hypothesis import Phase, settings


def examples(number: int) -> settings:
    """Run a property so often on each backend; a failure tells how to see it again."""
    # Not Phase.explain: it takes longer than a run that hangs may take.
    phases = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]
    return settings(
        max_examples=number, phases=phases, derandomize=False, deadline=None, print_blob=True
    )
