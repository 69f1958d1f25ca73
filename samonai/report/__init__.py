"""What people look at: tables, curves, overlays, and one page with all of them."""
