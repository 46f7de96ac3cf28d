"""Serve the API: for people with a token, and for the command line with HANDRAIL_URL.

Runs and rehearsals go on when whoever began them goes away. Told to end (SIGTERM, Ctrl-C), it
begins nothing more, lets what runs end, and records it. Tokens are made with `handrail tokens`.

examples:
  handrail serve
  handrail serve --listen 10.0.3.5:8321 --certificate server.pem --key server.key
  handrail serve --listen 127.0.0.1:8321 --socket /run/handrail/api.sock
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call

EXTRA = ("starlette", "uvicorn", "prometheus_client")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--listen",
        default="127.0.0.1:8321",
        metavar="HOST:PORT",
        help="where to listen; `none` for a socket alone; 127.0.0.1:8321 when left out",
    )
    parser.add_argument("--socket", metavar="FILE", help="listen here too, for this user alone")
    parser.add_argument("--certificate", default="", metavar="FILE", help="PEM: speak TLS")
    parser.add_argument("--key", default="", metavar="FILE", help="PEM: the certificate's key")
    parser.add_argument(
        "--behind-proxy",
        action="store_true",
        help="a proxy speaks TLS: listen on any address without",
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long what runs may go on once told to end; 60 when left out",
    )
    parser.add_argument(
        "--at-once",
        type=int,
        default=16,
        metavar="N",
        help="rehearsals and runs that are under way at once; 16 when left out",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=20.0,
        metavar="N",
        help="requests a second that a token may make in the long run; 20 when left out",
    )
    parser.add_argument(
        "--hook-rate",
        type=int,
        default=30,
        metavar="N",
        help="pushes to one app that web hooks may tell in a minute; 30 when left out",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long a request may take to arrive; 10 when left out",
    )


def run(call: Call) -> int:
    """Serve until told to end."""
    _insist_on_extra()
    from handrail import wiring
    from handrail.api import serving
    from handrail.api.server import Bounds

    options = call.options
    if bool(options.certificate) != bool(options.key):
        raise UsageError("usage", "--certificate and --key belong together")
    for file in (options.certificate, options.key):
        if file and not Path(file).is_file():
            raise UsageError("server.listen", f"there is no file {file}")
    least = min(options.at_once, options.hook_rate)
    if least < 1 or min(options.rate, options.patience) <= 0 or options.grace < 0:
        raise UsageError("usage", "--at-once, --rate, --hook-rate and --patience are above 0")
    listening = serving.Listening(
        address="" if options.listen == "none" else options.listen,
        path=Path(options.socket).absolute() if options.socket else None,
        certificate=options.certificate,
        key=options.key,
        is_proxied=options.behind_proxy,
        grace_s=options.grace,
    )
    if not listening.address and listening.path is None:
        raise UsageError("usage", "nowhere to listen", hint="--listen HOST:PORT or --socket FILE")
    bounds = Bounds(
        per_s=options.rate,
        burst=max(1, int(options.rate * 3)),
        wrong_per_minute=max(30, int(options.rate)),
        at_once=options.at_once,
        hooks_per_minute=options.hook_rate,
        head_s=options.patience,
        body_s=options.patience,
    )
    root, kits = call.root, call.kits
    return serving.serve(call.world, lambda: wiring.declared(root, kits), listening, bounds)


def _insist_on_extra() -> None:
    from importlib.util import find_spec

    missing = next((name for name in EXTRA if find_spec(name) is None), "")
    if missing:
        raise UsageError(
            "server.extra",
            f"the server needs `{missing}`, which is not installed",
            hint="pip install 'handrail[server]'",
        )
