"""What lies on disk: scans, preprocessed cases, temporary volumes."""
