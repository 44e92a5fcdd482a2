"""Exported graphs in integers: ranges from photos, convolutions in int8, and which of them stay in float32."""
