"""From tuned operations to a plan: code, weights, steps, details, the check against float64."""
