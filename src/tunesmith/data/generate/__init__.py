"""Making a data set with a teacher: seeds and documents in, checked rows and a report out.

A generation is a folder, ``home/generations/ID``: ``request.json`` what was asked for, ``sources.json`` what the
teacher is shown, ``candidates.jsonl`` every answer as it came (append only), ``rows.jsonl`` and ``report.json`` the
result. The plan follows from the first two, so a run that was killed goes on where it was, and asks nothing again.
"""
