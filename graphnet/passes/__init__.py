"""The passes: each a function from Graph to Graph, in a file of its own."""
