"""An inference engine: requests come while it runs, stream, sample, choose adapters, share prefixes.

request      what one asker wants and has
scheduler    which request reads how many tokens in the next step; blocks: the bookkeeping of the paged cache
flat, model, architectures    the forward, written out over the tokens of all rows
adapters, sampling, text      what happens around a forward
engine       add, step, cancel, run
"""

from .engine import Engine, EngineFull
from .request import Event, Request, Sampling

__all__ = ["Engine", "EngineFull", "Event", "Request", "Sampling"]
