"""Run a file of SQL on a SQLite database: sql.py DATABASE FILE."""

import sqlite3
import sys
from pathlib import Path

database, file = sys.argv[1:]
with sqlite3.connect(database) as connection:
    connection.executescript(Path(file).read_text())
connection.close()
