"""How gunicorn runs the stand-in: as it runs the dashboard."""

import os

worker_class = "gthread"
workers = int(os.environ["WEB_WORKERS"])
threads = int(os.environ["WEB_THREADS"])
timeout = 30
graceful_timeout = 5
keepalive = 5
preload_app = True
control_socket_disable = True
worker_tmp_dir = "/dev/shm"
accesslog = None
errorlog = "-"
loglevel = "info"
