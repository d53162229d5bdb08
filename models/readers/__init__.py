"""How an ONNX file becomes operators: one file per family of ONNX operators, each reader under its ONNX name."""
