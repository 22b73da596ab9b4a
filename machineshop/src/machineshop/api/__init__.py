"""HTTP in: parse, call one service, serialize; one file per resource."""
