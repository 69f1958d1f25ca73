"""Training objectives: mask losses, semantic head loss, border targets."""
