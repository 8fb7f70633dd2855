"""`python -m phase.boot`, started by the seed's init."""

import sys

from phase.boot.main import main

sys.exit(main())
