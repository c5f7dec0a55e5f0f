"""From a fused network to problems in memory: shapes bound, layers lowered, buffers placed."""
