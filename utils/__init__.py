"""Constants, command-line habits, geometry and pictures that the other packages share."""
