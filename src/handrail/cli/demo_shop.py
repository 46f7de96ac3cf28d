"""The files of `handrail demo deploy`: a small web shop in its own repository, and a team's estate.

Placeholders are filled by `str.format`; what the shop's own files need of braces is doubled.
"""

from __future__ import annotations

SERVER = '''\
"""A small web shop: what it sells, what a basket costs, and whether it is well."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = {version}
PRICES = {{"tea": 3, "cup": 7}}


def basket():
    total = {total}
    return {{"version": VERSION, "total": total}}


class Shop(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            page = basket() if self.path == "/basket" else {{"version": VERSION, "well": True}}
            self.answer(200, page)
        except Exception as error:
            self.answer(500, {{"version": VERSION, "error": repr(error)}})

    def answer(self, status, page):
        text = (json.dumps(page) + "\\n").encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Shop).serve_forever()
'''
# What a basket costs, by version: the second one is ill in a way that no health page shows.
TOTALS = {
    1: "sum(PRICES.values())",
    2: 'sum(PRICES.values()) / PRICES["discount"]',
    3: "sum(PRICES.values()) * 0.9",
}
SPEC = """\
app: shop
files: [server.py]
update: {at-once: 1, healthy: 1s}
tasks:
  web:
    command: ["${python}", server.py, "{port}"]
    instances: 2
    port: ${port}
    check: http://127.0.0.1:{port}/health
"""
VARIABLES = """\
python = "{python}"
port = "{port}"
"""
ESTATE = """\
environments:
  production: {{production: true}}

platforms:
  here:
    kind: supervisor
    url: {address}
    folder: {folder}
    environment: production

apps:
  shop:
    repository: ../shop
    spec: deploy/app.yaml
    variables: deploy/{{environment}}.vars
    platform: platform/here
    environment: production
    checks: ["http://127.0.0.1:{port}/health"]
    soak: 4s

services:
  till:
    environment: production
    needs: [app/shop]
    checks: ["http://127.0.0.1:{port}/basket"]
"""
