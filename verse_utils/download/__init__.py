"""Fetch VerSe where it is missing: from its zips, or from OSF file by file."""
