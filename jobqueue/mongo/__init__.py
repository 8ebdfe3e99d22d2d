"""The MongoDB adapter: everything that knows what a document, an index or a filter looks like.

Only the modules of this package and `driver.py` import a driver. `repository.py` is the way in; the subjects
behind it: `documents` (document <-> Job), `moves` (filter and update of each move), `indexes`, `calls`
(deadlines, errors), `store` (the collections, pinned), `inserts` and `outcomes` (group commits), `claims`,
`pages`, `overview`, `sweeps`, `adoption`, `wakeups` (queues and signals), `leases` (renewal from a thread).
"""

from jobqueue.mongo.repository import MongoJobRepository

__all__ = ["MongoJobRepository"]
