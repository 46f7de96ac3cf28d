"""Handrail: plan, rehearse, approve, run, watch and undo changes to production.

Kept empty on purpose: `handrail --help` pays for every import made here.
"""
