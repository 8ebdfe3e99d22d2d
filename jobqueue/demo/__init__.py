"""`jobqueue demo`: a shop that shows in about ten seconds what the service does, on a database that is gone afterwards.

Nothing is staged but the shop: the service is the real one, and the demo talks to it over HTTP like any client. What it
says at the end, the service has counted too; the two are compared.
"""
