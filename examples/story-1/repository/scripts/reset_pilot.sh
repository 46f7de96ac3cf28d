#!/bin/sh
# Reset the pilot before a test day.
set -eu
. "$(dirname "$0")/lib/db.sh"
clean_all
