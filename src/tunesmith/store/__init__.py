"""What is kept: rows in a database (``db``, ``tables``, ``repos``) and bytes in a blob store (``blobs``)."""
