"""Names of cases that one module measures and another one reports: a report finds them in the results by these."""

from __future__ import annotations

POST = "POST /jobs"
POST_PYMONGO = "POST /jobs, pymongo"
BULK = "POST /jobs/bulk"
GET = "GET /jobs/{id}"
BARE_POST = "bare POST"
GROUPED = "bare POST and grouped inserts"
BARE_BULK = "bare POST and insert_many of 1,000"
BARE_GET = "bare GET and find_one"

BARE_PICKUP = "bare insert and claim"
TOLD = "across processes, change stream"
POLLED = "across processes, polling"
