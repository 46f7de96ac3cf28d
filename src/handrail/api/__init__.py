"""The HTTP API: what the command line does, for people with a token; one file a resource."""
