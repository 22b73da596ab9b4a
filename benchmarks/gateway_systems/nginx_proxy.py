"""nginx with one worker process, connections to the replica kept, answers passed on as they come."""

import shutil
from pathlib import Path

from gateway_systems.base import Access
from harness.errors import BenchmarkError
from harness.processes import Child, accepts_connections, free_port

CONFIGURATION = """\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  upstream replica {{ server 127.0.0.1:{replica}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://replica;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering {buffering};
    }}
  }}
}}
"""


class Nginx:
    """nginx as a proxy.

    Args:
        folder: where it runs.
        replica: the port that it forwards to.
    """

    name = "nginx"

    def __init__(self, folder: Path, replica: int) -> None:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if program is None:
            raise BenchmarkError("nginx is not installed: apt-get install nginx-light")
        folder = folder / "nginx"
        folder.mkdir()
        port = free_port()
        text = CONFIGURATION.format(port=port, replica=replica, buffering="on; proxy_max_temp_file_size 0")
        (folder / "nginx.conf").write_text(text, encoding="utf-8")
        self.access = Access(port)
        self._child = Child("nginx", [program, "-p", str(folder), "-c", "nginx.conf"], folder)
        self._child.wait_until(lambda: accepts_connections(port), "listening")

    @property
    def processes(self) -> list[int]:
        """See `Gateway`."""
        return self._child.process_ids()

    def take_down(self) -> None:
        """See `Gateway`."""
        self._child.stop()
