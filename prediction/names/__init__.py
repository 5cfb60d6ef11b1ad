"""Which vertebra is which: the sequence of names along the spine, and the mask divided among them."""
