"""What the demo in a browser runs: it ends neither by itself, nor when it is told to."""

import signal
import time


def not_now(*_: object) -> None:
    print("SIGTERM? Not now.")


signal.signal(signal.SIGTERM, not_now)
print("this will not end on its own, nor when it is told to")
while True:
    time.sleep(5)
    print("still here")
