"""Fully connected layers of few rows on GPUs: weights are streamed once per row tile."""
