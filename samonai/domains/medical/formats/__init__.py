"""Volume formats: NIfTI, NRRD and MetaImage readers and writers."""
