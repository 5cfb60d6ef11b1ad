"""Phantoms of whole trunks: real sizes by level, and everything around the spine that a network has to tell apart."""
