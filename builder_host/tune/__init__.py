"""Choosing tactics: candidates, timings kept as text, selection per problem and per plan."""
