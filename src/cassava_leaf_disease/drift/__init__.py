"""Whether what is asked now is like what the model learned: counts of answers by day, and how far they have moved."""
