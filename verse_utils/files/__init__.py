"""Folders, room on disks, and locks: what all that reads or writes data has in common."""
