"""Activation checkpointing: less memory for more time, in every architecture by one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from networks.network import Network, batch_norms


def checkpoint_blocks(network: Network) -> None:
    """Keep only the inputs of the network's blocks, and recompute their activations in the backward pass.

    A block may list methods in ``checkpointed``; these are recomputed one by one. Gradients and running statistics
    stay the same; a training step takes about a third longer (Chen et al. 2016, arXiv:1604.06174).
    """
    for block in network.modules():
        if isinstance(block, network.block_types):
            # It can't compile the change of the norms in between. Asked where it is needed: it loads the compiler.
            run_twice = torch.compiler.disable(_run_twice_with_batch_norm) if batch_norms(block) else _run_twice
            for method in getattr(block, "checkpointed", ("forward",)):
                setattr(block, method, partial(run_twice, getattr(block, method)))


def _run_twice(once: Callable[..., Any], *inputs: Any) -> Any:
    """Compute a block's method now, and again in the backward pass."""
    return checkpoint(once, *inputs, use_reentrant=False)


def _run_twice_with_batch_norm(once: Callable[..., Any], *inputs: Any) -> Any:
    contexts = partial(_contexts, once.__self__)  # type: ignore[attr-defined]  # a method of the block
    return checkpoint(once, *inputs, use_reentrant=False, context_fn=contexts)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first computation of a block, and the second."""
    return nullcontext(), _without_statistics(block)


@contextmanager
def _without_statistics(block: nn.Module) -> Iterator[None]:
    """Keep batch norms from counting the same batch twice."""
    norms = batch_norms(block)
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
