"""Shipped fakes of the ports, for the tests of teams and kits."""
