"""Costs of training an architecture: operations, memory, time."""
