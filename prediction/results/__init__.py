"""What inference leaves: the files of each scan, and the tables and pictures of all."""
