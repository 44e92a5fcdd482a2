"""`python -m cassava_leaf_disease` is `cassava`."""

import sys

from cassava_leaf_disease.cli import main

if __name__ == "__main__":
    sys.exit(main())
