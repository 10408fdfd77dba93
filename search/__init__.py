"""What an index is and how it is asked: catalog, generations, search. No model, no server."""
