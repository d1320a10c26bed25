"""Jobs: what may be asked (``request``, ``service``), what follows (``plan``), who sees to it (``supervisor``)."""
