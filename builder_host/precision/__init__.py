"""Which layer is computed in which precision: rules, and whether INT8 pays."""
