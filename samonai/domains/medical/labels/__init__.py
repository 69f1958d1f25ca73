"""Label maps of scans: reading, matching with images, structures by name."""
