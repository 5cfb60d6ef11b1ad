"""Losses take logits; metrics take finished masks and heatmaps, and give numbers with a unit."""
