"""The last step: one HTML file that says what the run found, how sure that is, and how it was made.

Self-contained (figures are inlined, no script, nothing is fetched), so that it can be mailed and still opens in ten
years. Every text of a model or a data set is escaped by the template.
"""

from finr1.report.page import build_report, read_samples, read_verdicts
from finr1.report.pdf import write_pdf
from finr1.report.summary import summary_sentences, summary_text

__all__ = ["build_report", "read_samples", "read_verdicts", "summary_sentences", "summary_text", "write_pdf"]
