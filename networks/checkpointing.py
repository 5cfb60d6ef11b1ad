"""Gradient checkpointing: memory for time, in every architecture by one call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from networks.network import Network


def checkpoint_blocks(network: Network) -> None:
    """Let the network keep only the inputs of its blocks, and compute what is inside again in the backward pass.

    A block may name methods in ``checkpointed`` that are to be run again one by one. Gradients and running statistics
    stay the same; a training step takes about a third longer (Chen et al. 2016, arXiv:1604.06174).
    """
    for block in network.modules():
        if isinstance(block, network.block_types):
            for method in getattr(block, "checkpointed", ("forward",)):
                once = getattr(block, method)
                twice = partial(checkpoint, once, use_reentrant=False, context_fn=partial(_contexts, block))
                setattr(block, method, twice)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """What surrounds the first computation of a block, and the second."""
    return nullcontext(), _without_statistics(block)


@contextmanager
def _without_statistics(block: nn.Module) -> Iterator[None]:
    """Keep batch norms from counting the same batch twice."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
