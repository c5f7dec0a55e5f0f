"""Kernel family `cuda_conv_wgmma`."""
