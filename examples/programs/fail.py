"""What the demo in a browser runs: it fails after three steps."""

import sys
import time

for step in 1, 2, 3:
    print(f"step {step} of 5")
    time.sleep(0.3)
sys.exit(3)
