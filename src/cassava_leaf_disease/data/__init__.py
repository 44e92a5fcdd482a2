"""Tables of labelled photos, their division into parts, and the tensors that training is given."""
