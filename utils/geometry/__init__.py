"""Voxels, grids and millimetres."""
