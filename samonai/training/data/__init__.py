"""Training data: stored frames as a dataset, splits, folds, class balance, embedding mix-up."""
