"""The same service over GraphQL: POST /graphql, subscriptions over a websocket, and the page GraphiQL.

Resolvers are one call of `JobService` each. Input is validated by the models of REST (`api/schemas.py`), errors
are those of its table (`api/errors.py`) with a code instead of a status. `schema` is the way in; `requests` and
`sockets` bring operations to it, `page` serves GraphiQL.
"""
