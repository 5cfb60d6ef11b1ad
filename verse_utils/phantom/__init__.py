"""Synthetic spines in VerSe's layout, to try out and test the code."""
