"""Generated loop nests: the family that computes every layer kind without a hand-made kernel."""
