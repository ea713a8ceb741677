"""Tables of series and of rows: reading, checking and scaling."""
