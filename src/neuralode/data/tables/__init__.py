"""Tables of series and tables of rows: reading, validation and scaling."""
