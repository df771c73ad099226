"""The replication ledger: each claim of the paper, what a run did about it, what it got, and a verdict by rule."""

from finr1.ledger.claims import Claim, look_up, read_claims
from finr1.ledger.evidence import Evidence, read_evidence
from finr1.ledger.verdicts import Entry, as_rows, entries, hold, shown_number, tally

__all__ = [
    "Claim",
    "Entry",
    "Evidence",
    "as_rows",
    "entries",
    "hold",
    "look_up",
    "read_claims",
    "read_evidence",
    "shown_number",
    "tally",
]
