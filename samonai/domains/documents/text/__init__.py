"""Text of pages: words, OCR, text matching, retrieval, queries and their results."""
