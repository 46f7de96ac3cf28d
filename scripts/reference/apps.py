"""The page of apps and platforms, from what the deploys kit declares and its adapters read."""

from __future__ import annotations

from files import RULES, table

from handrail.adapters.supervisor import reading
from handrail.kits.deploys.declared import APP, PLATFORM

INTRODUCTION = f"""\
# Apps, platforms and their specifications

An app is declared in the estate, beside everything else; its specification lies in its own
repository, with its code. How both are used is in [deploy-an-app.md](../how-to/deploy-an-app.md).

{RULES}
Besides the keys below, apps and platforms have those of
[every resource](estate-files.md#every-resource): `environment`, `needs`, `checks`,
`contraindications`.

```yaml
# estate/apps.yaml
environments:
  production: {{production: true}}

platforms:
  prod:
    kind: nomad
    url: {{env: NOMAD_ADDR}}
    token: {{env: NOMAD_TOKEN}}
    environment: production
  here:
    kind: supervisor
    url: unix:///run/handrail/supervisor.sock
    folder: /srv/apps
  aws:
    kind: autoscaling
    region: eu-west-1

apps:
  shop:
    repository: git@git.example:team/shop.git
    spec: deploy/shop.nomad.hcl
    variables: deploy/{{environment}}.vars
    platform: platform/prod
    environment: production
    images: {{web: "ghcr.io/team/shop:{{commit}}"}}
    checks: ["http://shop.internal/health"]
    soak: 2m

groups:
  routers: {{platform: platform/aws, name: routers-asg}}

nodes:
  router-3: {{platform: platform/aws, machine: i-0abc}}
```
"""
SPEC = """\
## Specification of an app under Supervisor

On Nomad a specification is a job, in HCL or JSON, as `nomad job run` takes it. Under Supervisor it
is this file:

```yaml
# deploy/app.yaml
app: shop
files: [server.py, static]
update: {at-once: 1, healthy: 5s}
tasks:
  web:
    command: ["python3", server.py, "{port}"]
    instances: 2
    port: ${port}
    environment: {SHOP_INSTANCE: "{instance}"}
    check: http://127.0.0.1:{port}/health
```

`${name}` stands for a variable of the app's variables file, in values alone; `$${name}` is the text
`${name}`. In commands, environments and checks `{port}`, `{instance}` and `{image}` stand for what
each instance has. No shell reads `command`. `files` are those of the repository that are there when
it runs: each version has a directory of its own.
"""
VARIABLES = """\
## The file of variables

Lines as HCL has them (`name = "value"`; numbers, `true`, `false` and lists, too), or flat YAML
where its name ends in `.yaml`, `.yml` or `.json`. It lies in the app's repository, and is read at
the same commit as the specification. `{environment}` in its path, and in the specification's, is
the app's environment. No value of it is shown.
"""


def apps_page() -> str:
    """Return the page."""
    return (
        "\n".join(
            [
                INTRODUCTION,
                "## `apps`\n",
                table(APP),
                "## `platforms`\n",
                table(PLATFORM),
                SPEC,
                table(dict(reading.APP.keys)),
                VARIABLES,
            ]
        ).rstrip("\n")
        + "\n"
    )
