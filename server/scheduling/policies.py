"""The policies by the names that configuration uses."""

from __future__ import annotations

from collections.abc import Mapping

from lockstep.server.scheduling.least_cost import least_cost
from lockstep.server.scheduling.policy import Policy, first_come, none, token_budget

POLICIES: Mapping[str, Policy] = {
    "none": none,
    "first_come": first_come,
    "token_budget": token_budget,
    "least_cost": least_cost,
}
