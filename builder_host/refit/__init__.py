"""Other weights into a plan: its code, steps and layouts stay as they are."""
