"""A trained network on a scan: sliding windows, connected components, masks on the scan's own grid."""
