"""Local response normalisation over channels-last images on GPUs."""
