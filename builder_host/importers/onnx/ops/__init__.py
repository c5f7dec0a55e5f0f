"""Translation rules, one operator or one tight family per module; `registry.py` finds them."""
