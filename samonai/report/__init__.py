"""Reports: tables, learning curves, overlays, and an HTML page with all of them."""
