"""Process groups and progress handlers that training and evaluation share."""
