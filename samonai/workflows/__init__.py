"""Workflows of all interfaces: train, evaluate, predict, embed, archive, and run folders."""
