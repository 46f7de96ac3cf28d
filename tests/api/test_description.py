"""The description of the API and what the server really answers are one.

Requests are generated from the description, right and wrong ones; `HYPOTHESIS_PROFILE=torture`
makes forty times as many.
"""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from handrail.api import hooks
from handrail.api.openapi import description
from handrail.api.routes import ROUTES
from support.served import ADMIN, Served

# The token is ours: a request whose missing one is put back in would count as accepted.
schema = schemathesis.openapi.from_dict({**description(), "security": []})
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
EXAMPLES = 8


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_described(case: schemathesis.Case[Any], served: Served) -> None:
    """Whatever is sent, the answer is as described, never a 5xx, and what is wrong is refused."""
    token = served.token(ADMIN, "admin")
    case.call_and_validate(
        base_url=served.url,
        headers={"Authorization": f"Bearer {token}"},
        checks=CHECKS,
        timeout=30,
    )


def test_description_is_served(served: Served) -> None:
    """The description is there for everybody, is a valid JSON Schema throughout, and names all."""
    told = served.ask("GET", "/v1/openapi.json", token=None).json
    assert told["openapi"] == "3.1.0"
    paths = {f"{m.upper()} {path}" for path, of in told["paths"].items() for m in of}
    assert paths == {route.name for route in ROUTES} | {hooks.NAME}
    for shape in told["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(shape)


@pytest.mark.parametrize("path", ["/v1/whoami", "/v1/status", "/v1/check", "/v1/plans", "/v1/runs"])
def test_real_answers_fit(served: Served, path: str) -> None:
    """Answers that hold something are as described, too: a generated request seldom finds one."""
    told = description()
    answer = told["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
    whole = {**answer["schema"], "components": told["components"]}
    jsonschema.Draft202012Validator(whole).validate(served.ask("GET", path).json)


def test_a_plan_fits(served: Served) -> None:
    """A plan, the largest of all answers, is as described."""
    told = description()
    plan = served.ask("POST", "/v1/plans", {"operation": "reset-pilot"})
    whole = {"$ref": "#/components/schemas/Judged", "components": told["components"]}
    jsonschema.Draft202012Validator(whole).validate(plan.json)
