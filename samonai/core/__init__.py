"""Foundations: errors, files, the frame, geometry, memory, pseudonyms, settings."""
