"""From the bytes of a photo to the pixels that a network is given."""
