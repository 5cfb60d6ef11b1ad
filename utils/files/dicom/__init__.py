"""DICOM: which files are slices of a CT, what their pixels mean, and where they lie."""
