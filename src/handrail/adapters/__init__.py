"""One outside system a file or package; foreign errors become ours here."""
