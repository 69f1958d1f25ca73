"""DICOM objects of results: SEG and RTSTRUCT readers and writers, SR, measurements."""
