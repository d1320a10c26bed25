"""A server's supervisor in a process of its own, to be killed: HOME DATABASE_URL MAX_RUNNING COMMAND..."""

import sys
import time
from pathlib import Path

from tunesmith.core.log import configure_logging
from tunesmith.core.settings import Settings
from tunesmith.jobs.launchers.local import LocalLauncher
from tunesmith.jobs.supervisor import Supervisor
from tunesmith.store.blobs import make_blobs
from tunesmith.store.db import Database

configure_logging()
home, url, max_running, *command = sys.argv[1:]
settings = Settings(
    home=Path(home), database_url=url, poll_s=0.02, lease_s=2.0, max_running_jobs=int(max_running), cancel_grace_s=1.0
)
database = Database(url)
supervisor = Supervisor(settings, database, make_blobs(settings), LocalLauncher(1, command))
supervisor.start()
print(supervisor.owner, flush=True)
time.sleep(600)
