"""SSD detection output on the CPU."""
