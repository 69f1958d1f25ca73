"""Phantom patients: generated anatomy as NIfTI and DICOM."""
