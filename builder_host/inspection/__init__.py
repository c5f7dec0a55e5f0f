"""Looking into plans: one self-contained HTML page, differences, roofs."""
