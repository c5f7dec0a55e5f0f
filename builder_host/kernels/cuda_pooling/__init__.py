"""Max and average pooling of channels-last images on GPUs."""
