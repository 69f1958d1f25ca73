"""DICOM series: files, slices, stacks, pixel decoding, PET SUV, geometry, study discovery."""
