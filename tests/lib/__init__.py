"""What the scenarios share: a browser's view of a site, a shell on its host, and playbook runs whose changes are data."""
