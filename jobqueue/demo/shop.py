"""The demo's shop: its tasks. Confirming an order takes a moment; shipping fails as long as the carrier is away."""

from __future__ import annotations

import asyncio

from jobqueue.job import JsonValue
from jobqueue.tasks import Registry

CONFIRM, SHIP = "order.confirm", "parcel.ship"
SHIPPING_ATTEMPTS = 3
CONFIRM_SECONDS = 0.15


class CarrierAway(Exception):
    """What shipping fails with."""


class Carrier:
    """Who takes the parcels. Away at first."""

    def __init__(self) -> None:
        self.is_there = False


def shop_tasks(carrier: Carrier) -> Registry:
    """The tasks of a shop that ships with this carrier."""
    registry = Registry()

    @registry.task(CONFIRM)
    async def confirm(payload: JsonValue) -> dict[str, JsonValue]:
        """Pretend to confirm an order."""
        await asyncio.sleep(CONFIRM_SECONDS)
        return {"confirmed": payload}

    @registry.task(SHIP, max_retries=SHIPPING_ATTEMPTS)
    async def ship(payload: JsonValue) -> dict[str, JsonValue]:
        """Pretend to ship a parcel."""
        if not carrier.is_there:
            raise CarrierAway("the carrier does not answer")
        return {"shipped": payload}

    return registry
