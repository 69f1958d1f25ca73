"""Ground floor: errors, files, the frame, geometry, memory, pseudonyms, number ranges."""
