#!/bin/sh
# The replica that everybody forwards to: nginx, which costs less than whoever stands before it.
cat > nginx.conf <<END
daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events { worker_connections 2048; }
http {
  access_log off;
  sendfile on;
  keepalive_requests 100000000;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  server {
    listen 127.0.0.1:$PORT;
    location = /health { return 200 "ok"; }
    location = /small { default_type application/json; return 200 '{"a": 1}'; }
    location = /large { alias $LARGE_FILE; }
  }
}
END
exec nginx -p "$PWD" -c nginx.conf
