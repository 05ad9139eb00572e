"""A trained run as files for other programs, ONNX or what timm opens, checked, with a model card."""
