"""The MongoDB adapter: everything that knows what a document, an index or a filter looks like.

Only the modules of this package and `driver.py` import a driver. `repository.py` is the way in for the service and
the engine, `leases.py` for the lease thread, `inspection.py` for the doctor; each module behind them has one subject,
which `docs/architecture.md` lists.
"""

from jobqueue.mongo.repository import MongoJobRepository

__all__ = ["MongoJobRepository"]
