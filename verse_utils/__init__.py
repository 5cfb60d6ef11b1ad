"""What VerSe is: names, labels, cases, centroids, download and a synthetic stand-in (no torch)."""
