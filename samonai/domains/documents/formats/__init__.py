"""Page formats: pictures, PDF, COCO, PAGE-XML, ALTO, DocBank, Docling."""
