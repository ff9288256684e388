"""One offline HTML page about a run: what it is, how it went, what it can do and how to repeat it."""
