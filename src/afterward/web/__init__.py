"""Where jobs are seen: over HTTP as resources and streams, and by people on the dashboard."""
