"""What the demo in a browser runs: it ends neither by itself, nor when it is told to."""

import os
import signal
import time


def not_now(*_: object) -> None:
    os.write(1, b"SIGTERM? Not now.\n")  # a handler cannot print: it may interrupt a print


signal.signal(signal.SIGTERM, not_now)
print("this will not end on its own, nor when it is told to")
while True:
    time.sleep(5)
    print("still here")
