"""
What is left to do when a source has been closed: ``on_end``, the last items, and the error.

An error is raised once: by the ask after the last item, or where the block ends if the consumer has
left before that, or by ``aclose()``. Whoever asks first takes it.
"""

from __future__ import annotations

import anyio

from .ending import Ending
from .exceptions import both, not_an_end
from .handoff import Handoff
from .outcome import Outcome, told_of_failure
from .pipeline import Pipeline


class Conclusion:
    """
    The conclusion of one stream, in its source task.

    :param ending: how the source ended
    :param handoff: where the last items go, and the end
    :param cancelled: what the backend raises in a task that is cancelled

    """

    __slots__ = (
        "_cancelled",
        "_cleanup_error",
        "_error",
        "_handoff",
        "_raises",
        "_unseen",
        "failed",
    )

    def __init__(self, ending: Ending, handoff: Handoff, cancelled: type[BaseException]) -> None:
        self._handoff = handoff
        self._cancelled = cancelled
        self._cleanup_error = ending.cleanup_error
        self._error = ending.error
        self._raises = ending.raises
        # The part of the error that remains at the end if the consumer does not meet it.
        self._unseen: BaseException | None = None
        #: Whether the end has something to raise in the consumer.
        self.failed: bool = ending.raises is not None

    async def run(self, pipeline: Pipeline, outcome: Outcome) -> None:
        """Run what the stages do at the end, hand their last items over, and end the stream."""
        raises, handoff = self._raises, self._handoff
        failed: BaseException | None = None
        on_end_error = await _run_on_end(pipeline, outcome, self._cancelled)
        told = outcome if on_end_error is None else told_of_failure(outcome, on_end_error)
        try:
            last = None if handoff.closed else pipeline.final(told)
            if last is None:
                # A stage may have taken it meanwhile.
                raises, self._raises = self._raises, None
            else:
                for item in last:
                    if handoff.closed:
                        break
                    # The source is closed and its scopes are left, so a scope is safe here.
                    with anyio.CancelScope(shield=True):
                        await handoff.demand()
                    handoff.put(item)
                # Everything was said in its place.
                raises = None
        except self._cancelled:
            failed = anyio.BrokenResourceError("the source task was cancelled before the last item")
        except BaseException as exc:
            failed = not_an_end(exc)
        failed = both(on_end_error, failed)
        # An exception that only says how the source was ended is not a failure.
        failure = raises if raises is self._error else None
        if handoff.closed:
            self._cleanup_error = both(failure, both(self._cleanup_error, failed))
        else:
            self._unseen = both(failure, failed)
            handoff.end(both(raises, failed))
        # The traceback of an error of a stage includes this frame.
        del raises, failure, failed, on_end_error, told, outcome, self

    def take_error(self) -> BaseException | None:
        """Return the failure that was not raised yet: in the closing, or unseen before it."""
        error, self._cleanup_error, self._raises = self._cleanup_error, None, None
        if self._handoff.take_error() is not None:
            error = both(self._unseen, error)
        return error

    def take_raises(self) -> BaseException | None:
        """Return what the source's end raises in the consumer, which then no longer receives it."""
        error, raises, self._raises = self._handoff.take_error(), self._raises, None
        return raises if error is None else error


async def _run_on_end(
    pipeline: Pipeline, outcome: Outcome, cancelled: type[BaseException]
) -> BaseException | None:
    """Run it, and return what it raises."""
    try:
        await pipeline.end(outcome)
    except cancelled:
        # By Task.cancel(), at the end of asyncio.run() for instance: no shield helps, and the
        # consumer is not being cancelled with it.
        return None
    except BaseException as exc:
        return not_an_end(exc)
    return None
