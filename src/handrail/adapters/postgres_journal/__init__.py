"""The journal in PostgreSQL, for a team on several machines: the same chains, records and hashes.

Rules:
- The schema is `handrail`, in any database of the team's; its owner need be no superuser.
- docs/reference/journal-format.md is the specification.
"""
