"""UFF importer: TensorFlow networks as converted for TensorRT."""
