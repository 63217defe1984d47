"""What the demo in a browser runs: it ends as a tool that has waited for a lock in vain."""

import os
import sys
import time

time.sleep(2.5)
sys.exit(os.EX_TEMPFAIL)
