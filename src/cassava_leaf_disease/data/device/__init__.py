"""Photos that live where the network learns: decoded once, kept as uint8 on the device, changed in batches there."""
