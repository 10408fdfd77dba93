"""The doors: HTTP server, web page and the `lookalike` command."""
