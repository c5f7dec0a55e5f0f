"""Convolution on tensor cores that round float32 products to tf32."""
