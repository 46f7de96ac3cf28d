"""The built-in guards, one file each, in the order in which they are asked.

A guard is anything with a `name` and `judge(case)`; each module here is one. A kit adds its own.
"""

from __future__ import annotations

from handrail.guards import (
    avoidable,
    backup_proven,
    committed,
    contraindication,
    environment,
    freeze,
    identity,
    irreversible,
    lock,
    privilege,
    production_data,
    rehearsed,
    review,
    second_person,
    typed_name,
    unheld,
)
from handrail.plans.judging import Guard

BUILT_IN: tuple[Guard, ...] = (
    identity,
    lock,
    environment,
    production_data,
    contraindication,
    freeze,
    backup_proven,
    rehearsed,
    committed,
    review,
    irreversible,
    avoidable,
    unheld,
    privilege,
    second_person,
    typed_name,
)
