"""Training and testing of the two networks."""
