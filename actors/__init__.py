"""What runs: actors, mailboxes, sockets, timers, supervision. See docs/architecture.md."""
