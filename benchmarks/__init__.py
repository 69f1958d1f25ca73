"""Benchmarks: speed and memory as ratios, measured interleaved on the machine at hand.

``python -m benchmarks [--quick] [--out DIR] [--only SUBJECT]``. Contestants take turns (A B A B …)
on random weights, so that a busy machine slows all of them alike and nothing has to be downloaded.
"""
