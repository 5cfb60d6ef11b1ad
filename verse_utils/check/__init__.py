"""What can be wrong with a case, found before it is trained on; ``python -m verse_utils.check ROOT`` tells."""
