"""Calibration: batches of real data -> histograms of every tensor -> dynamic ranges."""
