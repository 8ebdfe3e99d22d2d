"""What one of several processes is to do: everything that their supervisor has read, checked and decided, once.

It goes to the process through a socket that only these two hold: it may contain a password.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from jobqueue.job import Fault
from jobqueue.settings import Settings


class Assignment(BaseModel):
    """One line of JSON on its way. `numbers` are those of all processes, `number` is this one's."""

    model_config = ConfigDict(frozen=True)

    settings_given: dict[str, Any]
    mongodb_uri: str
    http: bool
    workers: bool
    modules: tuple[str, ...]
    simulate: bool
    folder: str
    numbers: tuple[int, ...]
    number: int

    @classmethod
    def of(cls, settings: Settings, **rest: Any) -> Self:
        """The assignment with these settings; the URI of the database is a field of its own."""
        given = settings.model_dump(mode="json", exclude={"mongodb_uri", "fault"})
        # A fault without a number fails every attempt, one with the number 0 none: what was not said stays unsaid.
        given["fault"] = settings.fault and settings.fault.model_dump(mode="json", exclude_unset=True)
        return cls(settings_given=given, **rest)

    @property
    def settings(self) -> Settings:
        """The settings as the supervisor had them, whatever the environment says."""
        fault = self.settings_given["fault"]
        # As a model: an object would be merged with that of the environment.
        given = self.settings_given | {"fault": fault and Fault(**fault)}
        return Settings(**given, mongodb_uri=None)
