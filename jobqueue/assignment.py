"""What one of several processes is to do: everything that their supervisor has read, checked and decided, once.

It goes to the process through a socket that only these two hold: it may contain a password.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict

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
        return cls(settings_given=settings.model_dump(mode="json", exclude={"mongodb_uri"}), **rest)

    @property
    def settings(self) -> Settings:
        """The settings as the supervisor had them, whatever the environment says."""
        return Settings(**self.settings_given, mongodb_uri=None)
