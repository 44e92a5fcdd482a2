"""What runs inside Triton's Python backend; the exported repository takes these files along with all they import."""
