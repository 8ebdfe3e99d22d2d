"""The service over HTTP: routes, what goes in and out, and how errors look. Everything it does, the service does."""
