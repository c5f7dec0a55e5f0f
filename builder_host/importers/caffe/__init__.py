"""Caffe importer: prototxt and caffemodel to a Network, by the rules of BVLC Caffe."""
