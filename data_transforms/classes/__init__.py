"""The project's own torchio transforms, one a file."""
