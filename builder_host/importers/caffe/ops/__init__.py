"""One Caffe layer type per module: `TYPES` and `convert(layer)`; found by `registry.py`."""
