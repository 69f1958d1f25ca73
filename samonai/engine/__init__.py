"""Process groups and progress handlers shared by training and evaluation."""
