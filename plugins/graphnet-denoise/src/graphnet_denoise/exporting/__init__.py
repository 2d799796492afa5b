"""Models for other programs: darktable's .dtmodel and the packages of BioImage.IO; both hold an ONNX file."""
