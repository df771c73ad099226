"""Names and events of each split, and what a family hands back. No name or event stands in two splits."""

from __future__ import annotations

from dataclasses import dataclass, field

from finr1.records import Turn

CODE_NAMES = {
    "train": ("price", "quantity", "fee"), "dev": ("rate", "hours", "bonus"), "test": ("cost", "units", "tax")
}  # fmt: skip
TABLE_ROW = {"train": "sales", "dev": "profits", "test": "costs"}
COMPANIES = {
    "train": ["Harbor Foods", "Alto Steel", "Nordwind", "Pine Bank", "Vega Motors", "Lumen Retail", "Oak Telecom"],
    "dev": ["Delta Paper", "Sierra Rail", "Cobalt Energy", "Maple Air"],
    "test": ["Orchid Labs", "Granite Ports", "Zephyr Media", "Willow Insurance"],
}
NEWS = {
    "bullish": {
        "train": ["raises its profit forecast", "wins a record order", "beats estimates", "lifts its dividend",
                  "posts its best quarter ever", "gets upgraded to buy", "sees sales soar"],
        "dev": ["tops expectations", "reports strong growth", "jumps on a new contract", "doubles its earnings",
                "gains market share"],
        "test": ["surges after a profit beat", "hikes its outlook", "hits a record high", "wins approval for its drug",
                 "pays a special dividend", "rallies on upbeat results"],
    },
    "bearish": {
        "train": ["cuts its profit forecast", "loses a key customer", "misses estimates", "suspends its dividend",
                  "posts a record loss", "gets downgraded to sell", "sees sales plunge"],
        "dev": ["falls short of expectations", "warns of weak demand", "drops on a lawsuit", "halves its earnings",
                "loses market share"],
        "test": ["tumbles after a profit miss", "slashes its outlook", "hits a record low", "recalls a faulty product",
                 "defaults on its debt", "sinks on weak results"],
    },
    "neutral": {
        "train": ["will hold its annual meeting", "publishes its report", "names the date of its call",
                  "files its yearly statement", "moves its office", "confirms its schedule", "updates its website"],
        "dev": ["will present at a conference", "announces the date of its results", "renames a division",
                "publishes its calendar", "opens a press page"],
        "test": ["will host an investor day", "schedules its shareholder vote", "changes its ticker symbol",
                 "posts its annual agenda", "lists the speakers of its forum", "sends out invitations"],
    },
}  # fmt: skip
INCIDENTS = {
    "environmental": {
        "train": ["spilled oil into a river", "cut its carbon emissions", "polluted the air near a plant",
                  "planted trees on old mines", "reduced its water use"],
        "dev": ["leaked chemicals into a lake", "switched to solar power", "protected a wetland"],
        "test": ["dumped waste in a forest", "recycled its plastic packaging", "burned coal without filters",
                 "restored a coral reef"],
    },
    "social": {
        "train": ["raised the pay of its workers", "ignored safety rules for staff", "trained unemployed youth",
                  "used child labour at a supplier", "gave parents paid leave"],
        "dev": ["fired workers who joined a union", "paid for staff health care", "opened a school for children"],
        "test": ["made employees work unpaid overtime", "hired more disabled people", "locked the exits of a factory",
                 "paid women as much as men"],
    },
    "governance": {
        "train": ["hid losses from its auditor", "bribed an official", "added independent directors to its board",
                  "let its chief executive set his own pay", "published its voting rules"],
        "dev": ["backdated options for its directors", "separated chairman and chief executive",
                "changed its auditor in secret"],
        "test": ["misled shareholders about its accounts", "gave its audit committee more power",
                 "paid its board without a vote", "disclosed all pay of directors"],
    },
}  # fmt: skip


@dataclass
class Draft:
    """What a family returns: four wordings of one question, its gold answer and the worked steps to it."""

    wordings: list[str]
    gold: str
    steps: list[str]
    context: str = ""
    history: list[Turn] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
