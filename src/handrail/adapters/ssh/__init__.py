"""A team's own programs on a node: run there over SSH, kept there until they are collected.

Rules:
- The `ssh` program does it, with the team's own config and agent; nothing is installed on the node.
- The node proves who it is by a host key that the estate declares, or nothing is sent to it.
- The script's keeper on the node outlives the connection, and notes how the script ended.
"""

from handrail.adapters.ssh.connecting import Node
from handrail.adapters.ssh.running import SshProcesses

__all__ = ["Node", "SshProcesses"]
