"""Does on import all that a library should not, so that a test can see that it would be seen."""

import logging
import os
import signal
import subprocess
import tempfile
import threading

logging.basicConfig()
tempfile.TemporaryFile().close()
os.mkdir(directory := tempfile.mktemp())
os.rmdir(directory)
subprocess.run(["true"], check=True)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
threading.Thread(target=threading.Event().wait, daemon=True).start()
