"""Layouts of data sets on disk: a module for each, which ``verse_utils.catalogue`` finds by itself.

A module here holds a ``LAYOUT``. To read another data set, add a module; nothing else has to change. VerSe's own
layouts are in ``verse_utils.cases``.
"""
