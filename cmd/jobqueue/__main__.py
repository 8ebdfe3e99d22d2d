"""The program `jobqueue`, run by its path: `python cmd/jobqueue serve`."""

import sys

from jobqueue.entry import main

if __name__ == "__main__":
    sys.exit(main())
