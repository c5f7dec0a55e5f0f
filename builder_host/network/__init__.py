"""Networks: tensors, layers with their shape rules and float64 references, the building API."""
