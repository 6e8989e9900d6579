"""ONNX models to TensorFlow graphs in NHWC, which transpose only where they must."""
