"""A job service on MongoDB.

The whole of it in one sentence: an aiohttp handler (`api/handlers.py`) calls the service (`service.py`),
which writes the job document through the repository (`repository.py`, `mongo/`) and offers its id to the
dispatcher (`dispatch.py`); the worker pool (`worker.py`) claims it with findOneAndUpdate (many jobs with one
updateMany, `mongo/claims.py`), which increments `retryCount`, runs its task (`tasks.py`), and marks it completed
or failed (`mongo/outcomes.py`).

States: `scheduled` -> `pending` -> `processing` -> `completed` | `failed` | `cancelled`; `job.MOVES` has every
legal move. What is guaranteed:

- A job whose enqueue was answered with 2xx is stored by a majority, journalled, and ends `completed`,
  `failed` or `cancelled`, whatever process dies in between.
- It runs at least once: a worker that dies leaves a lease behind; when that has expired another worker runs
  the job again. An attempt that lost its lease changes nothing any more and is told so.
- `retryCount` never exceeds `maxRetries`.
"""

__version__ = "0.1.0"
