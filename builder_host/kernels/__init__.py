"""Kernel families, one package each, and the rules by which they apply to a problem."""
