"""A model repository for NVIDIA Triton: its configurations, its graphs and the code that it takes along."""
