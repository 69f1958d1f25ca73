"""Metrics of volumes and objects: Dice, surface Dice, HD95, average precision, calibration."""
