"""The small program that stands between Handrail and a script.

Rules:
- It is executed, never called, by Handrail: `python -I -S`, standard library alone, with relative
  imports only, so that nothing of the team's environment can reach into it.
- It holds no decision: what to run, and what to keep it away from, comes in one request.
"""
