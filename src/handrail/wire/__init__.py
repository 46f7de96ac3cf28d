"""The guard on the wire: what stands between a script and a server.

Rules:
- The real credentials exist in the guard's process alone; the script gets a secret that is valid at
  the guard, once.
- What cannot be classified is destructive; what cannot be counted is refused.
- The only place, with the web front, where `async` stands.
"""
