"""The page of the API, from the table of routes and the description that is made of it."""

from __future__ import annotations

from typing import Any

from handrail.api import hooks
from handrail.api.openapi import description
from handrail.api.problems import STATUS
from handrail.api.route import Route
from handrail.api.routes import ROUTES
from handrail.errors import CODES
from handrail.plans.roles import DEEDS

INTRODUCTION = """\
# The API

`handrail serve` answers these addresses; the command line uses the same with `HANDRAIL_URL`. The
whole description, with every value's form, is at `/v1/openapi.json` (OpenAPI 3.1). How a team sets
it up is in [handrail-for-a-team.md](../how-to/handrail-for-a-team.md).

- Each request has `Authorization: Bearer TOKEN`. Bodies are JSON (`Content-Type:
  application/json`), 1 MiB at most; unknown keys are refused.
- Only what is declared can be planned, rehearsed or run: no path, no address of a store.
- What takes long answers 202 with an *errand*; `GET /v1/errands/{id}/events` streams what it says,
  as server-sent events, from its beginning. An errand goes on when nobody listens.
- `Idempotency-Key` (8 to 128 letters, digits, `._:-`), on what begins a rehearsal or a run: the
  same key again gives the first answer, also after a restart.
- Every answer has `X-Request-Id`; one that is sent along is kept.
- `/healthz` (it lives), `/readyz` (it takes work) and `/v1/openapi.json` need no token; `/metrics`
  (Prometheus) does.

An approval, or the release of a statement, is signed where the approver's key lies: ask for the
draft, sign its `payload` with `ssh-keygen -Y sign -n handrail`, and send it back as it came, with
the `signature`. The server believes nothing of it: it verifies against `allowed_signers`.
"""
HOOKS = """\
## Web hooks

`POST /hooks/deploy/{app}` takes no token but a signature with the app's `auto.secret`, over the
body as it is sent. What it begins is asked for by `ci@hooks/<app>`, who can approve nothing.

| who | signature | the same again is known by |
|---|---|---|
| your CI | `X-Handrail-Signature` | `id` in the body, else what was signed |
| GitHub, Gitea, Forgejo | `X-Hub-Signature-256` | its delivery, its bytes, or its commit |
| GitLab | `X-Gitlab-Token` | its delivery, its bytes, or its commit |

- `X-Handrail-Signature: t=<unix time>,v1=<hex>` is HMAC-SHA256 of `<unix time>.<body>`, and counts
  for five minutes.
- `X-Hub-Signature-256: sha256=<hex>` is of the body alone; a copy of it is known for ever.
- `X-Gitlab-Token` is the secret itself, and counts where the app says `tokens: true`.

```json
{
  "ref": "refs/heads/main",
  "commit": "3fa2b1c000000000000000000000000000000000",
  "images": {"web": "ghcr.io/team/shop:7"},
  "id": "build-7"
}
```

The body is that (`images` and `id` may be left out), or a forge's own push event.

| state | what became of the push |
|---|---|
| `ignored` | it is no push, or of a branch that is not in `auto.branches` |
| `begun` | no guard kept its plan back: it is being deployed, as the run that is named |
| `waiting` | its plan has to be approved; then it goes on by itself, if it is still the same plan |
| `refused` | with a code; why stands in the notice, and in the journal: `hook-<app>/<delivery>` |
| `superseded` | a newer push came before it had begun |
| `taken` | not planned yet: the app is busy, or its repository is slow |

The same delivery again is answered 200 with the first answer; another body under its id, 409. The
commit must be on the branch; of a forge's pushes only the branch's head counts. Of each app 30
pushes a minute are taken (`--hook-rate`).
"""
ERRORS = """\
## Errors

An error is a problem document (RFC 9457, `application/problem+json`): `status`, `title`, `detail`,
Handrail's `code` ([errors.md](errors.md)), `hint`, the `file` and `line` where it was declared, the
`request`'s id, and `exit_code`: what the same ends the command line with. A `run` that guards stop
also has the `plan`, which says why.

| status | when |
|---|---|
"""


def api_page() -> str:
    """Return the page: addresses with their roles, then roles, errors and codes of their own."""
    parts = [INTRODUCTION, "## Addresses\n", *_addresses(), _roles(), _errors()]
    return "\n".join(parts)


def _addresses() -> list[str]:
    rows = ["| address | role | body | answers |", "|---|---|---|---|"]
    rows += [_row(route) for route in ROUTES]
    rows += [f"| `{hooks.NAME}` | signed | `Pushed` | 202 `Hooked` |"]
    told = [f"- `{route.name}`: {route.does}{_takes(route)}" for route in ROUTES]
    told += [f"- `{hooks.NAME}`: {hooks.DOES}"]
    return ["\n".join(rows), "", *told, "", HOOKS]


def _row(route: Route) -> str:
    body = f"`{route.body.__name__}`" if route.body else ""
    answer = f"`{route.answer.__name__}`" if route.answer else route.content_type
    return f"| `{route.name}` | {route.role} | {body} | {route.status} {answer} |"


def _takes(route: Route) -> str:
    if route.query is None:
        return ""
    operation: dict[str, Any] = description()["paths"][route.path][route.method.lower()]
    names = ", ".join(f"`{one['name']}`" for one in operation["parameters"] if one["in"] == "query")
    return f" Takes {names}."


def _roles() -> str:
    rows = "\n".join(f"| `{role}` | {deeds} |" for role, deeds in DEEDS.items())
    return (
        f"## Roles\n\nEach may do what those before it may.\n\n| role | may |\n|---|---|\n{rows}\n"
    )


def _errors() -> str:
    told = description()["paths"]["/v1/runs"]["post"]["responses"]
    rows = [f"| {status} | {of['description']} |" for status, of in told.items() if status >= "400"]
    codes = [f"| `{code}` | {status} | {CODES[code]} |" for code, status in STATUS.items()]
    own = "\n".join(["| code | status | what it means |", "|---|---|---|", *codes])
    rest = (
        "Any other code has the status of its kind: 409 refused by a guard, or waiting for\n"
        "somebody; 422 a mistake in what is named or declared; 424 a store or script failed; 503\n"
        "the journal cannot be written."
    )
    return ERRORS + "\n".join(rows) + f"\n\n{own}\n\n{rest}\n"
