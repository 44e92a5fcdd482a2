"""`cassava audit`: labels that a model which has not learned them contradicts, for an expert to look at."""
