"""Refusals without what led to them. A traceback holds the calls it shows, and those hold the body that was refused."""

from axcollector.core.errors import Refusal


def without_trace(refusal: Refusal) -> Refusal:
    """A refusal that does not hold on to what was refused: the calls that found it have the whole body, inflated.

    Nobody reads where a refusal comes from. With that, it is often a part of a circle, which only the garbage collector
    finds, and that comes seldom (`launch`).
    """
    refusal.__cause__ = refusal.__context__ = None
    return refusal.with_traceback(None)
