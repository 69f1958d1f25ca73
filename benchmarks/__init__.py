"""What samonai claims about speed and memory, measured as ratios on the machine at hand.

``python -m benchmarks [--quick] [--out DIR] [--only SUBJECT]``. Contestants take turns (A B A B …)
on random weights, so that a busy machine slows all of them alike and nothing has to be downloaded.
"""
