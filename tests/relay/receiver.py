"""An HTTPS receiver of Standard Webhooks: receiver.py FOLDER PORT SECRET.

Writes a line of JSON for each request to FOLDER/requests, and answers what FOLDER/answer says, 204 without it; a
second later when there is FOLDER/slow.
"""

import http.server
import json
import ssl
import sys
import time
from pathlib import Path

import standardwebhooks

folder, port, secret = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        status, *headers = (folder / "answer").read_text().splitlines() if (folder / "answer").exists() else ["204"]
        try:
            event = standardwebhooks.Webhook(secret).verify(body, dict(self.headers))
        except standardwebhooks.WebhookVerificationError as error:
            event, status = {"error": str(error)}, "401"
        noted = {
            "id": self.headers["webhook-id"],
            "type": self.headers["content-type"],
            "user_agent": self.headers["user-agent"],
            "status": int(status),
            "event": event,
        }
        with (folder / "requests").open("a") as file:
            file.write(json.dumps(noted) + "\n")
        if (folder / "slow").exists():
            time.sleep(1)
        self.send_response(int(status))
        for header in headers:
            self.send_header(*header.split(": ", 1))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
