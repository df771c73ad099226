"""`python -m finr1 run --preset demo --run NAME`: the notebooks of a preset in order."""

import sys

from finr1.pipeline import main

if __name__ == "__main__":
    sys.exit(main())
