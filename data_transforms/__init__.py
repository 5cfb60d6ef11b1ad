"""Transforms of a subject between the H5 and the network."""
