"""PACS: query, retrieval and storage by DICOMweb and by DIMSE, and a queue of what arrives."""

INSTALL = "pip install 'samonai[pacs]'"
