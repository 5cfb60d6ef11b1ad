"""Image files of other formats than DICOM and NIfTI, and those in archives."""
