# Copied from the staging scripts. Nobody remembers why.
clean_all() {
    python3 "$(dirname "$0")/lib/sql.py" "$PILOT_DB" "$(dirname "$0")/sql/reset_all.sql"
}
