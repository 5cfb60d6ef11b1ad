"""A run from outside: its folder, its lock, the signals that stop it, and what is told of it."""
