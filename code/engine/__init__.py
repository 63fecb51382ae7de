"""An inference engine: requests come while it runs, stream, sample, choose adapters, share prefixes.

Read it in this order: `request` (what one asker wants and has), `blocks` and `scheduler` (who reads how many tokens in
the next step), `model`, `architectures` and `adapters` (the forward), `sampling` and `text`, and `engine` at last.
"""

from .engine import Engine, EngineFull
from .request import Event, Request, Sampling

__all__ = ["Engine", "EngineFull", "Event", "Request", "Sampling"]
