"""Workflows behind every door: train, evaluate, predict, embed, archive, and run folders."""
