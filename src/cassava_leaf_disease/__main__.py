"""`python -m cassava_leaf_disease` is `cassava`."""

from cassava_leaf_disease.cli import script

if __name__ == "__main__":
    script()
