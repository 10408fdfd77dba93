"""An index and its search: catalog, generations, queries. No model, no server."""
