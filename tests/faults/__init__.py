"""What may break, as tables: each row is one fault, and `docs/reliability.md` says what is promised about its kind."""
